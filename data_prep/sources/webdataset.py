"""WebDataset: shards of .tar, in which the neighbouring files of one key make up a sample (a.jpg, a.json, a.txt)."""

import dataclasses
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data_prep.adapters import FieldAdapter
from data_prep.disk_index import Place
from data_prep.errors import Reject
from data_prep.names import shard_split
from data_prep.sources.base import MAX_LINE_BYTES, Item, OnReject, Task
from data_prep.sources.jsonl import parse_object
from data_prep.tars import TarImages, tar_members

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
_MAX_FILES = 64


@dataclasses.dataclass(frozen=True)
class WebDataset:
    """A row has the fields of the sample's json, each of its small texts by extension (`txt`, `cls`), and `__key__`.

    `image` names its first image; every image is also named by its extension. A task is a whole shard.
    """

    files: tuple[Path, ...]
    adapter = FieldAdapter(caption_field="txt", id_field="__key__")

    @property
    def splits(self) -> list[str]:
        """Those that the names of the shards tell."""
        return list(dict.fromkeys(map(shard_split, self.files)))

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Yields a task per shard."""
        return (Task(str(file), shard_split(file), 1, 0, file.stat().st_size) for file in self.files)

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields a row per sample; what is wrong with the archive follows the sample before which it stands."""
        rejects: list[Reject] = []
        with Path(task.file).open("rb") as file:
            try:
                members = (
                    (*_split_key(name), name, place) for name, place in tar_members(file, rejects.append)
                )
                samples = itertools.groupby(members, key=lambda member: member[0])
                for number, (key, sample) in enumerate(samples, start=1):
                    yield _item(
                        number, key, [member[1:] for member in itertools.islice(sample, _MAX_FILES + 1)], file
                    )
                    yield from _drain(rejects)
            except tarfile.ReadError as error:
                rejects.append(Reject("damaged tar", f"not an uncompressed tar archive ({error})"))
            yield from _drain(rejects)


def _split_key(name: str) -> tuple[str, str]:
    """The key is the path up to the first dot of the file's name, the rest its extension."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, extension.lower()


def _item(number: int, key: str, members: list[tuple[str, str, Place]], file: BinaryIO) -> Item:
    if len(members) > _MAX_FILES:
        return Item(number, Reject("too many files", f"the sample {key!r} has more than {_MAX_FILES} files"))
    places = {name: place for _, name, place in members}
    images = TarImages(file, places.get)
    row: dict[str, object] = {}
    try:
        for extension, name, (_, size) in members:
            if f".{extension}".endswith(_IMAGE_SUFFIXES):
                row[extension] = name
                row.setdefault("image", name)
            elif size > MAX_LINE_BYTES:
                raise Reject("line too long", f"{name!r} has {size} bytes, at most {MAX_LINE_BYTES} are read")
            elif extension == "json":
                row = parse_object(images.read(name)) | row
            elif (text := _text(images.read(name))) is not None:
                row[extension] = text
    except Reject as reject:
        return Item(number, reject)
    return Item(number, row | {"__key__": key}, images)


def _text(data: bytes) -> str | None:
    """Arrays and other media of a sample are no concern of ours; a text that is not UTF-8 would be one of them."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None


def _drain(rejects: list[Reject]) -> Iterator[Item]:
    while rejects:
        yield Item(None, rejects.pop(0))
