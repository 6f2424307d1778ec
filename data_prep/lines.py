"""Lines of untrusted files: however long one is, memory stays bounded."""

from collections.abc import Iterator
from typing import BinaryIO

from data_prep.sources.base import MAX_LINE_BYTES


def bounded_lines(
    file: BinaryIO, stop: int | None = None, *, limit: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Yields (offset, line) from where `file` stands up to the offset `stop`.

    A line of more than `limit` bytes before its end is None; its bytes are passed over in pieces.
    """
    offset = file.tell()
    while (stop is None or offset < stop) and (line := file.readline(limit + 1)):
        start, offset = offset, offset + len(line)
        if len(line) <= limit or line.endswith(b"\n"):
            yield start, line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(limit)
            offset += len(line)
        yield start, None


def line_ranges(file: BinaryIO, lines: int, *, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, int, int]]:
    """Cuts a file into runs of `lines` lines; yields (offset of the first, offset behind the last, first number)."""
    start, first, number = 0, 1, 0
    for offset, _ in bounded_lines(file, limit=limit):
        if number and number % lines == 0:
            yield start, offset, first
            start, first = offset, number + 1
        number += 1
    if number:
        yield start, file.tell(), first
