"""One GRPO step beside its peers: `python -m experiments.benchmarks.grpo_step --peer trl tunix`.

All sides compute the same thing in turn, A B A B, each in a process of its own: the same model, one prompt, G answers
of R tokens, one update; token counts are checked. A peer is installed in a virtual environment on first use. The table
has medians over the rounds, and our ratio to each peer as the median and range of the rounds'. Peers compute on a GPU
where we do.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark, several
from experiments.benchmarks.common.environments import (
    PEERS,
    add_environments,
    ask_device,
    run_side,
    side_command,
)
from experiments.benchmarks.common.sizes import add_size, of_model
from experiments.benchmarks.grpo.material import write_material
from experiments.benchmarks.grpo.work import Work

COLUMNS = (
    "work",
    "side",
    "device",
    "step",
    "generate",
    "score",
    "update",
    "MiB",
    "above libraries",
    "device MiB",
    "times ours",
    "range",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("grpo_step", __doc__, repeats=3)
    add_size(parser)
    parser.add_argument(
        "--kind", nargs="+", default=["text"], choices=("text", "vlm"), help="without or with an image"
    )
    parser.add_argument("--group", type=int, nargs="+", default=[8], help="G, answers to one prompt")
    parser.add_argument(
        "--prompt", type=int, nargs="+", default=[640], help="P, tokens of a prompt and its image"
    )
    parser.add_argument("--answer", type=int, nargs="+", default=[64], help="R, tokens of an answer")
    parser.add_argument("--peer", nargs="*", default=[], choices=sorted(PEERS), help="who runs beside us")
    parser.add_argument("--lean", action="store_true", help="run peers in their leanest setting, too")
    parser.add_argument(
        "--steps", type=several, default=6, help="steps of a process; the first is not counted"
    )
    add_environments(parser)
    return run_benchmark(
        parser, measure_steps, COLUMNS, lambda options: f"One GRPO step{of_model(options)}, seconds", argv
    )


def measure_steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every shape and side, printed as they come."""
    environments = options.environments.absolute()
    folder = environments / "material"
    write_material(folder, itertools.product(options.kind, options.prompt), options.size)
    gpu = ask_device().platform == "gpu"
    commands = {name: side_command(name, environments) for name in ("ours", *options.peer)}
    rows: list[dict[str, Any]] = []
    for shape in itertools.product(options.kind, options.group, options.prompt, options.answer):
        work = Work(*shape, steps=options.steps, folder=str(folder), dtype=options.dtype, gpu=gpu)
        sides = list(sides_of(work, commands, lean=options.lean))
        rounds = [
            {side: run_side(commands[side[0]], work._replace(lean=side[1])._asdict()) for side in sides}
            for _ in range(options.repeats)
        ]
        new = list(summarise(work, rounds))
        print(*map(json.dumps, new), sep="\n", flush=True)
        rows += new
    return rows


def sides_of(work: Work, names: Iterable[str], *, lean: bool) -> Iterator[tuple[str, bool]]:
    """Who can do the work, as (name, whether in its leanest setting)."""
    for name in names:
        if name == "ours" or work.kind in PEERS[name].kinds:
            yield name, False
            if lean and name != "ours" and PEERS[name].has_lean:
                yield name, True


def summarise(
    work: Work, rounds: Sequence[Mapping[tuple[str, bool], Mapping[str, Any]]]
) -> Iterable[dict[str, Any]]:
    """One row per side: medians over the rounds, and how many times our step it took in each round."""
    for name, lean in rounds[0]:
        reports = [found[name, lean] for found in rounds]
        middle = {
            key: statistics.median(report[key] for report in reports)
            for key in ("step", "collect", "generate", "peak_mib", "libraries_mib")
        }
        device_mib = [report["device_mib"] for report in reports if "device_mib" in report]
        ratios = [found[name, lean]["step"] / found["ours", False]["step"] for found in rounds]
        yield {
            "work": f"{work.kind} G={work.group} P={work.prompt} R={work.answer}",
            "side": f"{name}, lean" if lean else name,
            "device": reports[0]["device"],
            "step": middle["step"],
            "generate": middle["generate"],
            "score": middle["collect"] - middle["generate"],
            "update": middle["step"] - middle["collect"],
            "MiB": round(middle["peak_mib"]),
            "above libraries": round(middle["peak_mib"] - middle["libraries_mib"]),
            "device MiB": round(statistics.median(device_mib)) if device_mib else None,
            "times ours": statistics.median(ratios),
            "range": f"{min(ratios):.2f}-{max(ratios):.2f}",
            "versions": reports[0]["versions"],
        }


if __name__ == "__main__":
    sys.exit(main())
