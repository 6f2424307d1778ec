"""Append-only files of one JSON object per line that survive being killed and resumed."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class JsonLines:
    """A `.jsonl` file: `append` adds one object, `rewind` drops what a resumed run will write again."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens `path` for appending; makes its folders and drops a last line that a kill cut short."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one object as one line; arrays become lists, numbers that are not finite null."""
        self._file.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def rewind(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Keeps the lines for which `keep(record)` holds, unchanged and in order.

        Raises:
            ValueError: a line is not JSON.
        """
        self._file.close()
        kept = [line for line, record in _parsed_lines(self.path) if keep(record)]
        replacement = self.path.with_name(self.path.name + ".tmp")
        replacement.write_text("".join(kept), encoding="utf-8")
        os.replace(replacement, self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records of a `.jsonl` file in order.

    Raises:
        ValueError: a line is not JSON.
    """
    return [record for _, record in _parsed_lines(Path(path))]


def plain(value: Any) -> Any:
    """What JSON can hold: NumPy and JAX values as Python's, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parsed_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    parsed = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                parsed.append((line, json.loads(line)))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number} is not JSON ({error.msg}); remove it") from error
    return parsed
