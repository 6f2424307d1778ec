"""A stage that has finished says so in its folder, with what it found."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.data.sidecar import FieldType, write_sidecar
from mmrpt_jax.training.processes import agreed, by_writer, demand_same, is_writer


def is_complete(directory: Path) -> bool:
    """Whether a stage has finished in `directory`; all processes agree on it."""
    return agreed((directory / "complete.json").exists())


def mark_complete(directory: Path, summary: dict[str, Any]) -> None:
    """Records that a stage has finished, with what it found."""
    by_writer(write_whole, directory / "complete.json", json.dumps(summary, indent=2, default=_jsonable))


def write_whole(path: Path, text: str) -> None:
    """Writes a text file that is whole or not there, whenever the process is stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def clear(directory: Path) -> None:
    """Removes what a stage left in `directory` that was stopped before it was complete."""
    by_writer(shutil.rmtree, directory, ignore_errors=True)


def write_rows(
    directory: Path, name: str, rows: Iterable[Mapping[str, Any]], *, fields: Mapping[str, FieldType]
) -> int:
    """Writes rows of the training records as a sidecar; every process makes them, and one of them writes.

    Returns:
        The number of rows.
    """
    if is_writer():
        count = write_sidecar(directory, name, {"train": rows}, fields=fields)["train"]
    else:
        count = sum(1 for _ in rows)
    demand_same(count, f"numbers of {name}")
    return count


def read_summary(directory: Path) -> dict[str, Any]:
    """What a finished stage found."""
    return json.loads((directory / "complete.json").read_text())


def _jsonable(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist()
