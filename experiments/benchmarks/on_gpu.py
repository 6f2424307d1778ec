"""All that is to be known of a GPU, by one command: `python -m experiments.benchmarks.on_gpu --out runs/gpu`.

Runs `rollout`, `update`, `grpo_step` (beside TRL) and `dependency` (beside `transformers`) one after the other, each in
a process of its own, on the first card: Qwen2.5-VL-3B's shape with random weights, in bfloat16. Where one fails, the
next follows, and the exit code is 1. In the folder that `--out` names are then `log.txt` and a table of each, as
`<name>.txt` and `<name>.json`; the last lines say whether the targets were met. Meant for a card of 80 GB.

`--size tiny --prompt 640 --answer 8` rehearses the same on any machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from experiments.benchmarks.common.command import several
from experiments.benchmarks.common.environments import add_environments, ask_device
from experiments.benchmarks.common.sizes import add_size
from experiments.benchmarks.published_sizes import QWEN2_5_VL
from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command

_NAMES = ("rollout", "update", "grpo_step", "dependency")


class Target(NamedTuple):
    """What a benchmark should reach.

    Attributes:
        column: of its table's last row.
        least: the share that is wanted.
        meaning: what it is a share of.
    """

    column: str
    least: float
    meaning: str


# Of `grpo_step` and `dependency` the peers' ratios tell.
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "rollout": Target("of bandwidth", 0.60, "the measured bandwidth"),
        "update": Target("of product", 0.45, "the measured rate of a matrix product"),
    }
)
# The first card, and nearly all of its memory; the rest is for its libraries. Who sets these otherwise knows why.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "0", "XLA_CLIENT_MEM_FRACTION": "0.92"}
# Of `dependency`, where `transformers` needs the memory while our process lives.
_SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 if a benchmark failed, 2 with one sentence on stderr."""
    failed: list[str] = []

    def command() -> str:
        options = command_line(argv)
        device = check_device(options.size)
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "log.txt", "w", encoding="utf-8") as log:

            def say(text: str) -> None:
                print(text, end="", flush=True)
                log.write(text)
                log.flush()

            say(f"{device}, jax {version('jax')}, {time.strftime('%Y-%m-%d')}\n")
            failed.extend(name for name, flags in plan(options).items() if not run(name, flags, say))
            log.write(summary := describe(options.out, options.only, failed) + "\n")
        return summary.rstrip()

    return run_command(command) or int(bool(failed))


def check_device(size: str) -> str:
    """What JAX computes on, by its vendor's name.

    Raises:
        UsageError: the size is a published one, and there is no GPU.
    """
    found = ask_device()
    if size in QWEN2_5_VL and found.platform != "gpu":
        raise UsageError(
            f"JAX sees no GPU here, but {found.kind}: pip install 'mmrpt_jax[cuda]' where there is one, or rehearse "
            "with --size tiny"
        )
    return found.kind


def plan(options: argparse.Namespace) -> dict[str, list[str]]:
    """Flags by benchmark, in the order in which they run."""
    shape = [f"--group={options.group}", f"--prompt={options.prompt}", f"--answer={options.answer}"]
    environments = f"--environments={options.environments}"
    special = {
        "rollout": shape,
        "update": shape,
        "grpo_step": [*shape, "--kind=vlm", environments, f"--steps={options.steps}"],
        "dependency": ["--tokens", *map(str, options.tokens), environments],
    }
    if not options.alone:
        special["grpo_step"] += ["--peer", "trl"]
        special["dependency"] += ["--transformers"]
    common = [f"--size={options.size}", f"--dtype={options.dtype}"]
    if options.repeats:
        common.append(f"--repeats={options.repeats}")
    return {
        name: [*common, f"--out={options.out / name}", *flags]
        for name, flags in special.items()
        if name in options.only
    }


def run(name: str, flags: Sequence[str], say: Callable[[str], None]) -> bool:
    """Runs a benchmark; what it prints is said as it comes; returns whether it did not fail."""
    command = [sys.executable, "-m", f"experiments.benchmarks.{name}", *flags]
    say(f"\n$ python {' '.join(command[1:])}\n")
    start = time.perf_counter()
    environment = _ENVIRONMENT | (_SHARING if name == "dependency" else {}) | os.environ
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for line in process.stdout or ():
            say(line)
    say(f"{name}: exit code {process.returncode} after {time.perf_counter() - start:.0f} s\n")
    return process.returncode == 0


def describe(out: Path, names: Sequence[str], failed: Sequence[str]) -> str:
    """A line for each target of the benchmarks that ran, and one for those that failed."""
    lines = [""]
    for name, target in TARGETS.items():
        if name in names and name not in failed:
            share = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))["rows"][-1][target.column]
            verdict = "met" if share >= target.least else "missed"
            lines.append(
                f"{name}: {share:.1%} of {target.meaning}; the target of {target.least:.0%} is {verdict}"
            )
    if failed:
        lines.append(f"failed: {', '.join(failed)}; {out / 'log.txt'} says why")
    return "\n".join(lines)


def command_line(argv: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for; all of it, at the published size, if nothing else is said."""
    parser = Parser(prog="python -m experiments.benchmarks.on_gpu", description=__doc__)
    add_size(parser, default="qwen2_5_vl_3b")
    parser.set_defaults(dtype="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder (%(default)s)")
    parser.add_argument("--only", nargs="+", default=_NAMES, choices=_NAMES, help="some of the benchmarks")
    parser.add_argument("--alone", action="store_true", help="without TRL and `transformers`")
    parser.add_argument("--group", type=int, default=8, help="G, answers to one prompt (%(default)s)")
    parser.add_argument(
        "--prompt", type=int, default=1300, help="P, tokens of a prompt and its image (%(default)s)"
    )
    parser.add_argument("--answer", type=int, default=512, help="R, tokens of an answer (%(default)s)")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[1024, 2048, 4096], help="T of `dependency` (%(default)s)"
    )
    parser.add_argument(
        "--repeats", type=several, help="measurements of each (as many as each takes by itself)"
    )
    parser.add_argument("--steps", type=int, default=6, help="of each process of `grpo_step` (%(default)s)")
    add_environments(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
