"""From the start of a process to its first training step: `python -m experiments.benchmarks.startup`.

The launcher's own process on a config's first training stage, cold (no compiled program at hand) and warm (started
again elsewhere, with the first start's compilation cache), until the first line of metrics is on disk.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.timing import quartiles, title
from mmrpt_jax.reporting.jsonl import read_jsonl

COLUMNS = ("start", "first step s", "low", "high", "programs of it")
CAPTION = "experiments/configs/mmrpt_scenes_base.py"
_STEPS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("startup", __doc__, repeats=3)
    parser.add_argument("--config", default=CAPTION, help="whose `caption` stage is started (%(default)s)")
    return run_benchmark(parser, measure_starts, COLUMNS, title("Starts of the launcher"), argv)


def measure_starts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Cold and warm in turn, one row for each."""
    starts: dict[str, list[tuple[float, int]]] = {"cold": [], "warm": []}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name, found in starts.items():
                found.append(start(options.config, Path(folder, name), Path(folder, "compiled")))
    return [_row(name, found) for name, found in starts.items()]


def start(config: str, workdir: Path, cache: Path) -> tuple[float, int]:
    """Seconds to the first step, and the programs that this step compiled or read from the cache.

    Raises:
        RuntimeError: the launcher failed; the message ends as its own does.
    """
    overrides = {
        "stages": "('caption',)",
        "caption.steps": _STEPS,
        "log_every": 1,
        "compilation_cache": cache,
    }
    fields = [f"--config.{name}={value}" for name, value in overrides.items()]
    command = [
        sys.executable,
        "-m",
        "experiments.launch",
        f"--config={config}",
        *fields,
        f"--workdir={workdir}",
    ]
    metrics, began = workdir / "metrics.jsonl", time.perf_counter()
    # A file, since a pipe that nobody reads holds its writer up.
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
            while process.poll() is None and not (metrics.exists() and metrics.read_text().endswith("\n")):
                time.sleep(0.01)
            seconds = time.perf_counter() - began
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.read()[-2000:]}")
    return seconds, int(read_jsonl(metrics)[0]["recompilations"])


def _row(name: str, found: Sequence[tuple[float, int]]) -> dict[str, Any]:
    low, middle, high = quartiles([seconds for seconds, _ in found])
    return dict(zip(COLUMNS, (name, middle, low, high, found[-1][1]), strict=True))


if __name__ == "__main__":
    sys.exit(main())
