"""The table that a run ends with: one row per arm, all numbers as JSON and the headline ones as text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrpt_jax.reporting.table import format_table, write_table


def write_results(
    workdir: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str], *, title: str
) -> str:
    """Writes `results.json`, with all numbers, and `results.txt`, with `columns`; returns the latter's table."""
    write_table(workdir / "results", rows, columns, title=title)
    return format_table(rows, columns)


def read_results(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a finished run."""
    return json.loads((workdir / "results.json").read_text())["rows"]
