"""A stage that has finished says so in its folder, with what it found."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np


def is_complete(directory: Path) -> bool:
    """Whether a stage has finished in `directory`."""
    return (directory / "complete.json").exists()


def mark_complete(directory: Path, summary: dict[str, Any]) -> None:
    """Records that a stage has finished, with what it found."""
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "complete.json", json.dumps(summary, indent=2, default=_jsonable))


def write_whole(path: Path, text: str) -> None:
    """Writes a text file that is whole or not there, whenever the process is stopped."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def clear(directory: Path) -> None:
    """Removes what a stage left in `directory` that was stopped before it was complete."""
    shutil.rmtree(directory, ignore_errors=True)


def read_summary(directory: Path) -> dict[str, Any]:
    """What a finished stage found."""
    return json.loads((directory / "complete.json").read_text())


def _jsonable(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist()
