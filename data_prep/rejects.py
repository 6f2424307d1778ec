"""The list of what was left out of a converted set, and why: one JSON object per line."""

import collections
import json
from pathlib import Path
from types import TracebackType
from typing import Self

from data_prep.errors import Reject

_DETAIL_CHARACTERS = 300


class RejectLog:
    """Appends rejects to a file and counts them by reason.

    Attributes:
        counts: rejects by reason.
        first: the first reject as a sentence, empty if there is none.
    """

    def __init__(self, path: Path):
        self.counts: collections.Counter[str] = collections.Counter()
        self.first = ""
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, reject: Reject, file: Path, line: int | None) -> None:
        """Lists `reject`; `line` counts from 1 and is None for what is no line, such as a tar member."""
        detail = reject.detail[:_DETAIL_CHARACTERS]
        self.counts[reject.reason] += 1
        self.first = self.first or f"{file.name}{f' line {line}' if line else ''}: {reject.reason}, {detail}"
        entry = {"file": file.name, "line": line, "reason": reject.reason, "detail": detail}
        self._file.write(json.dumps(entry) + "\n")
