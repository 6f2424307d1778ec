"""The list of what was left out of a converted set, and why: one JSON object per line."""

import collections
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from data_prep.errors import Reject

_DETAIL_CHARACTERS = 300


class RejectLog:
    """Appends rejects to a file."""

    def __init__(self, path: Path):
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, reject: Reject, file: Path, line: int | None = None) -> None:
        """Lists `reject`; `line` counts rows from 1 and is None for what is no row, such as a tar member."""
        detail = reject.detail[:_DETAIL_CHARACTERS]
        entry = {"file": file.name, "line": line, "reason": reject.reason, "detail": detail}
        self._file.write(json.dumps(entry).encode() + b"\n")

    def copy(self, path: Path) -> None:
        """Lists what another log listed."""
        with path.open("rb") as other:
            shutil.copyfileobj(other, self._file)


def count_rejects(path: Path) -> collections.Counter[str]:
    """Counts the rejects of a list by reason."""
    with path.open("rb") as lines:
        return collections.Counter(json.loads(line)["reason"] for line in lines)


def first_reject(path: Path) -> str:
    """Returns the first reject of a list as a sentence; empty if there is none."""
    with path.open("rb") as lines:
        line = lines.readline()
    if not line:
        return ""
    entry = json.loads(line)
    place = f"{entry['file']} line {entry['line']}" if entry["line"] else entry["file"]
    return f"{place}: {entry['reason']}, {entry['detail']}"
