"""Parquet with images inside, as Hugging Face's datasets have them ({'bytes', 'path'}), or with their paths."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from data_prep.errors import Reject
from data_prep.folders import FolderImages, NamedImages
from data_prep.names import shard_split
from data_prep.sources.base import MAX_IMAGE_BYTES, Item, OnReject, Task
from mmrpt_jax.data.tfds_view import plain

_ROWS_AT_ONCE = 16
# What a damaged file makes pyarrow raise; ArrowMemoryError is the answer to a size that is a lie.
_ERRORS = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


@dataclasses.dataclass(frozen=True)
class Parquet:
    """Rows of parquet files; an image field's value becomes the image's name, a list of images one of names.

    Attributes:
        files: the shards.
        images: the folder in which referenced images are; None looks beside the shard.
    """

    files: tuple[Path, ...]
    images: Path | None = None
    adapter = None

    @property
    def splits(self) -> list[str]:
        """Those that the names of the shards tell."""
        return list(dict.fromkeys(map(shard_split, self.files)))

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Yields runs of whole row groups that reach `rows` rows."""
        for file in self.files:
            try:
                with _open(file) as table:
                    groups = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
            except _ERRORS as error:
                on_reject(_damaged(error), file)
                continue
            start, first, gathered = 0, 1, 0
            for stop, count in enumerate(groups, start=1):
                gathered += count
                if gathered >= rows or (stop == len(groups) and gathered):
                    yield Task(str(file), shard_split(file), first, start, stop)
                    start, first, gathered = stop, first + gathered, 0

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields the rows; a damaged row group ends the task."""
        file = Path(task.file)
        folder = FolderImages(self.images or file.parent)
        number = task.first
        try:
            with _open(file) as table:
                for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=range(task.start, task.stop)):
                    for place in range(batch.num_rows):
                        yield _item(number, _row(batch, place), f"{file.stem}:{number}", folder)
                        number += 1
        except _ERRORS as error:
            yield Item(None, _damaged(error))


def _open(file: Path) -> parquet.ParquetFile:
    # Buffered, so that a row group of any size is read piece by piece; checksums where the writer left some.
    return parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True)


def _row(batch: pa.RecordBatch, place: int) -> dict[str, Any]:
    return {name: batch.column(index)[place].as_py() for index, name in enumerate(batch.schema.names)}


def _item(number: int, row: Mapping[str, Any], default: str, folder: FolderImages) -> Item:
    """Replaces the row's images by their names; those inside are at hand, the others lie in `folder`."""
    inside: dict[str, bytes] = {}
    named: dict[str, Any] = {}
    try:
        for field, value in row.items():
            name = default if not inside else f"{default}:{field}"
            if _is_image(value):
                named[field] = _take(value, name, inside)
            elif isinstance(value, list) and value and all(map(_is_image, value)):
                named[field] = [_take(image, f"{name}:{i}", inside) for i, image in enumerate(value)]
            else:
                named[field] = plain(value)
    except Reject as reject:
        return Item(number, reject)
    return Item(number, named, NamedImages(inside) if inside else folder)


def _is_image(value: Any) -> bool:
    if isinstance(value, bytes):
        return plain(value) is None  # binary columns hold texts, too
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def _take(image: Any, name: str, inside: dict[str, bytes]) -> str:
    """Adds an image to those `inside`, by its path or else by `name`, and returns what it is called."""
    data, path = (image, None) if isinstance(image, bytes) else (image["bytes"], image["path"])
    called = str(path) if path and path not in inside else name
    if data is not None:
        if len(data) > MAX_IMAGE_BYTES:
            raise Reject("unreadable image", f"{called!r} has {len(data)} bytes")
        inside[called] = data
    return called


def _damaged(error: BaseException) -> Reject:
    return Reject("damaged parquet", " ".join(str(error).split()) or type(error).__name__)
