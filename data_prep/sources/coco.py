"""COCO captions: one JSON file with `images` and `annotations`, and a folder of images."""

import contextlib
import dataclasses
import functools
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.adapters import FieldAdapter
from data_prep.disk_index import connect
from data_prep.errors import Reject
from data_prep.folders import FolderImages
from data_prep.json_stream import stream_arrays
from data_prep.names import shard_split
from data_prep.sources.base import Item, OnReject, Task

_INSERT = {
    "images": "INSERT INTO images (id, row) VALUES (?, ?)",
    "annotations": "INSERT INTO captions (image, caption) VALUES (?, ?)",
}


@dataclasses.dataclass(frozen=True)
class Coco:
    """A row is an image's entry with the list of its `captions`; the join is made on disk.

    Attributes:
        files: captions_train2017.json, for example, is the split train.
        images: the folder of the images; None is a folder beside the file with its name less `captions_`.
    """

    files: tuple[Path, ...]
    images: Path | None = None
    adapter = FieldAdapter(image_field="file_name", caption_field="captions", id_field="id")

    @property
    def splits(self) -> list[str]:
        """One per file."""
        return list(dict.fromkeys(map(_split, self.files)))

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Brings the captions to their images in a database, and yields ranges of images."""
        for file in self.files:
            with contextlib.closing(connect(_database(scratch, file), new=True)) as connection:
                count = _fill(connection, file, functools.partial(on_reject, file=file))
            for start in range(0, count, rows):
                yield Task(str(file), _split(file), start + 1, start, min(start + rows, count))

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields a row per image, in the order of the file."""
        file = Path(task.file)
        images = FolderImages(self.images or file.with_name(file.stem.removeprefix("captions_")))
        with contextlib.closing(connect(_database(scratch, file))) as connection:
            rows = connection.execute(
                "SELECT number, id, row FROM images WHERE number > ? AND number <= ? ORDER BY number",
                (task.start, task.stop),
            )
            for number, image, row in rows:
                found = connection.execute(
                    "SELECT caption FROM captions WHERE image = ? ORDER BY rowid", (image,)
                )
                captions = [json.loads(caption) for (caption,) in found]
                yield Item(number, json.loads(row) | {"captions": captions}, images)


def _fill(connection: sqlite3.Connection, file: Path, on_reject: Callable[[Reject], None]) -> int:
    """Reads the file into the database; returns the number of images."""
    with connection:
        connection.execute("CREATE TABLE images (number INTEGER PRIMARY KEY, id TEXT, row TEXT)")
        connection.execute("CREATE TABLE captions (image TEXT, caption TEXT)")
        with file.open("rb") as opened:
            try:
                for name, element in stream_arrays(opened, _INSERT):
                    try:
                        connection.execute(_INSERT[name], _columns(name, element))
                    except Reject as reject:
                        on_reject(reject)
            except Reject as reject:
                on_reject(reject)
        connection.execute("CREATE INDEX by_image ON captions (image)")
        connection.execute("CREATE INDEX by_id ON images (id)")
        lost = "SELECT count(*) FROM captions WHERE image NOT IN (SELECT id FROM images)"
        if count := connection.execute(lost).fetchone()[0]:
            on_reject(Reject("unknown image", f"{count} captions belong to no image of the file"))
        return int(connection.execute("SELECT count(*) FROM images").fetchone()[0])


def _columns(name: str, element: Any) -> tuple[str, str]:
    """The id of an image and, as JSON in ASCII, its entry or a caption."""
    id_field, needed = ("id", "file_name") if name == "images" else ("image_id", "caption")
    if not isinstance(element, dict) or not {id_field, needed} <= element.keys():
        raise Reject("missing key", f"an element of {name!r} is no object with {id_field!r} and {needed!r}")
    return json.dumps(element[id_field]), json.dumps(element if name == "images" else element[needed])


def _split(file: Path) -> str:
    return shard_split(file.with_name(file.name.removeprefix("captions_")))


def _database(scratch: Path, file: Path) -> Path:
    return scratch / f"{file.stem}.captions"
