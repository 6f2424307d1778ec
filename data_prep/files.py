"""Files and folders that appear complete or not at all, whenever a process is stopped or the power fails."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the name `target` at the end, its files safely on disk.

    If somebody else was faster, theirs stays: a task has the same result whoever does it.
    """
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.iterdir(), partial]:
            sync(path)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_complete(target: Path, text: str) -> None:
    """Writes a text file."""
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    partial.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
