"""A folder of X.jsonl files, each beside its images in X_images.tar."""

import contextlib
import dataclasses
import functools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from data_prep.disk_index import DiskIndex, write_index
from data_prep.errors import Reject
from data_prep.lines import bounded_lines, line_ranges
from data_prep.names import identifier
from data_prep.sources.base import MAX_LINE_BYTES, Item, OnReject, Task
from data_prep.tars import TarImages, tar_members
from mmrpt_jax.reporting.command_line import UsageError


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """Rows are the lines of `jsonls`; every X.jsonl is the split X."""

    jsonls: tuple[Path, ...]
    adapter = None

    @classmethod
    def in_folder(cls, folder: Path) -> "JsonLines":
        """Finds the files of `folder`, by name; raises UsageError if there are none or images are missing."""
        jsonls = tuple(sorted(folder.glob("*.jsonl")))
        if not jsonls:
            raise UsageError(f"{folder} has no *.jsonl file")
        for jsonl in jsonls:
            if not _tar(jsonl).is_file():
                raise UsageError(
                    f"{jsonl.name} needs its images in {_tar(jsonl).name}, which is not in {folder}"
                )
        return cls(jsonls)

    @property
    def files(self) -> list[Path]:
        """Lines and archives."""
        return [file for jsonl in self.jsonls for file in (jsonl, _tar(jsonl))]

    @property
    def splits(self) -> list[str]:
        """One per file."""
        return [identifier(jsonl.stem, "split") for jsonl in self.jsonls]

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Indexes the archives, and cuts the files after every `rows` lines.

        Raises:
            UsageError: an archive is none.
        """
        for jsonl, split in zip(self.jsonls, self.splits, strict=True):
            tar = _tar(jsonl)
            try:
                with tar.open("rb") as archive:
                    members = tar_members(archive, functools.partial(on_reject, file=tar))
                    write_index(scratch / f"{jsonl.stem}.index", members)
            except tarfile.ReadError as error:
                raise UsageError(f"{tar} is not an uncompressed tar archive ({error})") from error
            with jsonl.open("rb") as file:
                for start, stop, first in line_ranges(file, rows):
                    yield Task(str(jsonl), split, first, start, stop)

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields a row per line that is not blank."""
        jsonl = Path(task.file)
        with contextlib.ExitStack() as stack:
            index = stack.enter_context(contextlib.closing(DiskIndex(scratch / f"{jsonl.stem}.index")))
            images = TarImages(stack.enter_context(_tar(jsonl).open("rb")), index.get)
            file = stack.enter_context(jsonl.open("rb"))
            file.seek(task.start)
            for number, (_, line) in enumerate(bounded_lines(file, task.stop), start=task.first):
                if line is None or line.strip():
                    yield parse_item(number, line, images)


def parse_item(number: int, line: bytes | None, images: TarImages) -> Item:
    """Returns the row in a line, or what is wrong with it; None is a line that was too long to read."""
    if line is None:
        return Item(number, Reject("line too long", f"the line has more than {MAX_LINE_BYTES} bytes"))
    try:
        return Item(number, parse_object(line), images)
    except Reject as reject:
        return Item(number, reject)


def parse_object(data: bytes) -> dict[str, object]:
    """Returns a JSON object; raises Reject."""
    try:
        row = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Reject("invalid UTF-8", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Reject("invalid JSON", str(error)) from error
    if not isinstance(row, dict):
        raise Reject("invalid JSON", f"the line is a {type(row).__name__}, expected an object")
    return row


def _tar(jsonl: Path) -> Path:
    return jsonl.with_name(f"{jsonl.stem}_images.tar")
