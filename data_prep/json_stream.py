"""The elements of the arrays of one large JSON object, read one after the other."""

import codecs
import json
from collections.abc import Container, Iterator
from typing import Any, BinaryIO

from data_prep.errors import Reject
from data_prep.sources.base import MAX_LINE_BYTES

_CHUNK = 2**16
_SPACE = " \t\r\n"


def stream_arrays(file: BinaryIO, names: Container[str]) -> Iterator[tuple[str, Any]]:
    """Yields (name, element) of the arrays `names` of the object in `file`, in the order in which they stand.

    Any single element or other value may take up to MAX_LINE_BYTES characters; no more than that is held.

    Raises:
        Reject: the file is no such object. What stood before the fault has been yielded.
    """
    cursor = _Cursor(file)
    cursor.expect("{")
    while cursor.peek() != "}":
        name = cursor.value()
        cursor.expect(":")
        if name in names and cursor.peek() == "[":
            cursor.expect("[")
            while cursor.peek() != "]":
                yield name, cursor.value()
                cursor.separator("]")
            cursor.expect("]")
        else:
            cursor.value()
        cursor.separator("}")


class _Cursor:
    """A place in a text that is decoded as it is needed."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._parser = json.JSONDecoder()
        self._text = ""
        self._place = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._read(_CHUNK)

    def expect(self, character: str) -> None:
        """Steps over `character`."""
        found = self.peek()
        if found != character:
            raise Reject("invalid JSON", f"expected {character!r}, found {found!r}")
        self._place += 1

    def separator(self, end: str) -> None:
        """Steps over a comma, unless `end` follows."""
        if self.peek() != end:
            self.expect(",")

    def value(self) -> Any:
        """Decodes the value that begins here, reading on as far as it goes."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._place)
                # A number at the very end of what was read may go on.
                if end < len(self._text) or self._ended:
                    self._place = end
                    return value
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise Reject("invalid JSON", str(error)) from error
            if len(self._text) - self._place > MAX_LINE_BYTES:
                raise Reject(
                    "invalid JSON", f"a value is damaged, or has more than {MAX_LINE_BYTES} characters"
                )
            # Twice as much each time, so that a long value is not decoded again for every few bytes of it.
            self._read(size)
            size *= 2

    def _read(self, size: int) -> None:
        data = self._file.read(size)
        self._ended = not data
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise Reject("invalid UTF-8", str(error)) from error
        self._text, self._place = self._text[self._place :] + text, 0
