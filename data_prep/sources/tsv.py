"""VLMEvalKit's TSV: images in base64, texts of several lines in quotes, an image given by the index of another row."""

import base64
import binascii
import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from data_prep.adapters import vlmevalkit
from data_prep.disk_index import DiskIndex, Place, write_index
from data_prep.errors import Reject
from data_prep.folders import FolderImages
from data_prep.lines import bounded_lines
from data_prep.names import shard_split
from data_prep.sources.base import Images, Item, OnReject, Task

_MAX_ROW_BYTES = 64 * 2**20
# VLMEvalKit's own rule: what is shorter than this is no image but the index of the row that has it.
_MAX_INDEX_CHARACTERS = 64
_OPENING_QUOTE = re.compile(rb'(?:^|\t)"')


@dataclasses.dataclass(frozen=True)
class Tsv:
    """Rows have the columns that the first line names; `image` becomes the name of the row's image.

    `image_of` is the index of the row that has the image, so that what is asked about one image stays together.

    Attributes:
        files: tables; every X.tsv is the split X.
        images: the folder of images that a column `image_path` names; None looks beside the table.
    """

    files: tuple[Path, ...]
    images: Path | None = None
    adapter = staticmethod(vlmevalkit)

    @property
    def splits(self) -> list[str]:
        """One per file."""
        return list(dict.fromkeys(map(shard_split, self.files)))

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Notes where every index stands, and cuts the tables after every `rows` rows."""
        for file in self.files:
            tasks: list[Task] = []
            write_index(_index(scratch, file), _scan(file, rows, tasks))
            yield from tasks

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields the rows."""
        path = Path(task.file)
        folder = FolderImages(self.images or path.parent)
        with contextlib.ExitStack() as stack:
            index = stack.enter_context(contextlib.closing(DiskIndex(_index(scratch, path))))
            file = stack.enter_context(path.open("rb"))
            others = stack.enter_context(path.open("rb"))
            header = _header(file)
            file.seek(task.start)
            for number, (_, data) in enumerate(_records(file, task.stop), start=task.first):
                try:
                    row = _row(header, data)
                    yield _item(number, row, RowImages(row, header, index, others), folder)
                except Reject as reject:
                    yield Item(number, reject)


class RowImages:
    """The image of a row, which may stand in another row of the table."""

    def __init__(self, row: Mapping[str, str], header: Sequence[str], index: DiskIndex, file: BinaryIO):
        self._row = row
        self._header = header
        self._index = index
        self._file = file

    def read(self, name: str) -> bytes:
        """Returns the row's image, whatever its `name`; raises Reject if there is none."""
        encoded = self._row["image"]
        if len(encoded) <= _MAX_INDEX_CHARACTERS:
            place = self._index.get(encoded)
            if place is None:
                raise Reject("missing image", f"the image is that of row {encoded!r}, which does not exist")
            self._file.seek(place[0])
            encoded = _row(self._header, self._file.read(place[1])).get("image", "")
            if len(encoded) <= _MAX_INDEX_CHARACTERS:
                raise Reject(
                    "missing image", f"the image is that of row {self._row['image']!r}, which has none"
                )
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Reject("unreadable image", f"{name!r} is no base64: {error}") from error


def _item(number: int, row: dict[str, str], inside: RowImages, folder: FolderImages) -> Item:
    images: Images = inside
    name = owner = row.get("index") or str(number)
    if not row.get("image"):
        images, name = folder, row.get("image_path", "")
        owner = name
    elif len(row["image"]) <= _MAX_INDEX_CHARACTERS:
        owner = row["image"]
    return Item(number, {**row, "image": name, "image_of": owner}, images)


def _scan(file: Path, rows: int, tasks: list[Task]) -> Iterator[tuple[str, Place]]:
    """Yields the place of every index, and on the way lists the tasks."""
    with file.open("rb") as opened:
        header = _header(opened)
        start, first, number = opened.tell(), 1, 0
        for offset, data in _records(opened, None):
            if number and number % rows == 0:
                tasks.append(Task(str(file), shard_split(file), first, start, offset))
                start, first = offset, number + 1
            number += 1
            with contextlib.suppress(Reject):
                yield _row(header, data).get("index", ""), (offset, len(data or b""))
        if number:
            tasks.append(Task(str(file), shard_split(file), first, start, opened.tell()))


def _header(file: BinaryIO) -> list[str]:
    """Reads the names of the columns; a table without any has rows that miss everything."""
    _, data = next(_records(file, None), (0, None))
    try:
        return _fields(data)
    except Reject:
        return []


def _records(file: BinaryIO, stop: int | None) -> Iterator[tuple[int, bytes | None]]:
    """Yields (offset, bytes) of every row that is not blank; None is one that is too long, or never ends.

    A row ends with a line, unless a field that began with a quote is still open.
    """
    offset, size, quoted = file.tell(), 0, False
    gathered: list[bytes] | None = []
    for _, line in bounded_lines(file, stop, limit=_MAX_ROW_BYTES):
        size += _MAX_ROW_BYTES if line is None else len(line)
        quoted = line is not None and _is_open(line, quoted)
        if line is None or size > _MAX_ROW_BYTES:
            gathered, quoted = None, False
        elif gathered is not None:
            gathered.append(line)
        if not quoted:
            if gathered is None or any(part.strip() for part in gathered):
                yield offset, None if gathered is None else b"".join(gathered)
            offset, size, gathered = file.tell(), 0, []
    if quoted:
        yield offset, None


def _is_open(line: bytes, quoted: bool) -> bool:
    """Whether a quoted field is open behind `line`, if one was (`quoted`) before it."""
    place = 0
    while True:
        if quoted:
            place = line.find(b'"', place)
            if place < 0:
                return True
            doubled = line[place + 1 : place + 2] == b'"'
            place, quoted = place + 1 + doubled, doubled
        else:
            opening = _OPENING_QUOTE.search(line, place)
            if not opening:
                return False
            place, quoted = opening.end(), True


def _row(header: Sequence[str], data: bytes | None) -> dict[str, str]:
    fields = _fields(data)
    if len(fields) != len(header):
        raise Reject(
            "wrong number of columns", f"{len(fields)} fields where the first line names {len(header)}"
        )
    return dict(zip(header, fields, strict=True))


def _fields(data: bytes | None) -> list[str]:
    if data is None:
        raise Reject(
            "line too long", f"a quote is never closed, or the row has more than {_MAX_ROW_BYTES} bytes"
        )
    csv.field_size_limit(_MAX_ROW_BYTES)
    try:
        return next(csv.reader([data.decode("utf-8-sig")], delimiter="\t"), [])
    except UnicodeDecodeError as error:
        raise Reject("invalid UTF-8", str(error)) from error
    except csv.Error as error:
        raise Reject("damaged row", str(error)) from error


def _index(scratch: Path, file: Path) -> Path:
    return scratch / f"{file.stem}.index"
