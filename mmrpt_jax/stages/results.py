"""The table that a run ends with: one row per arm, all numbers as JSON and the headline ones as text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmrpt_jax.reporting.table import format_table, write_table
from mmrpt_jax.stages.completion import is_complete, mark_complete, read_summary
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.processes import by_writer


def evaluated(run: Run, name: str, measure: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The row of one arm, as it was found before, or as `measure` finds it of the arm's parameters."""
    directory = run.workdir / "arms" / name
    target = directory / "evaluation"
    if not is_complete(target):
        row = {"arm": name, **measure(run.arm(name))}
        mark_complete(target, row | {"train_flops": read_summary(directory)["flops"]})
    return read_summary(target)


def write_results(
    workdir: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str], *, title: str
) -> str:
    """Writes `results.json`, with all numbers, and `results.txt`, with `columns`; returns the latter's table."""
    by_writer(write_table, workdir / "results", rows, columns, title=title)
    return format_table(rows, columns)


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a finished run."""
    return json.loads((workdir / "results.json").read_text())["rows"]
