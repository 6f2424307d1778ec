"""What a task of a conversion leaves behind: a folder that appears complete or not at all.

train.array_record, dev.array_record   records by split, in the order of the source
ids                                    an element of `ids.ID` per record
rejects.jsonl                          what was left out
report.json                            counts and checksums
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import Reject
from data_prep.files import complete_folder
from data_prep.ids import encode_id
from data_prep.rejects import RejectLog
from mmrpt_jax.data.manifest import FileEntry, describe_file
from mmrpt_jax.data.records import RECORD_FEATURES, Record
from mmrpt_jax.data.shards import ShardWriter

IDS = "ids"
REJECTS = "rejects.jsonl"
_REPORT = "report.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a task wrote for one split.

    Attributes:
        bytes: serialised size of the records.
        entry: the file, as the manifest will list it.
    """

    bytes: int
    entry: FileEntry


@dataclasses.dataclass(frozen=True)
class Report:
    """What a task did.

    Attributes:
        shards: by split, in the order in which their first records came; splits without a record have none.
        escaped: texts that held the literal string of a special token.
    """

    shards: dict[str, Shard]
    escaped: int

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Reads the report of a finished task."""
        content = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        shards = {
            split: Shard(shard["bytes"], FileEntry(**shard["entry"]))
            for split, shard in content["shards"].items()
        }
        return cls(shards, content["escaped"])


class TaskWriter:
    """Writes the files of a task.

    Attributes:
        escaped: to be counted by the caller.
    """

    def __init__(self, folder: Path, file: Path, stack: contextlib.ExitStack):
        self.escaped = 0
        self._folder = folder
        self._file = file
        self._stack = stack
        self._shards: dict[str, ShardWriter] = {}
        self._ids = stack.enter_context((folder / IDS).open("wb"))
        self._rejects = stack.enter_context(RejectLog(folder / REJECTS))

    def add(self, split: str, record: Record, row: int) -> None:
        """Adds a record that was made of the row of this number, and notes its id."""
        self.shard(split).add(record)
        self._ids.write(encode_id(record["id"], row, list(self._shards).index(split)))

    def shard(self, split: str) -> ShardWriter:
        """The shard of a split."""
        if split not in self._shards:
            shard = ShardWriter(shard_file(self._folder, split), RECORD_FEATURES)
            self._shards[split] = self._stack.enter_context(shard)
        return self._shards[split]

    def reject(self, reject: Reject, row: int | None) -> None:
        """Lists what is left out of the task's file."""
        self._rejects.add(reject, self._file, row)

    def copy_rejects(self, path: Path) -> None:
        """Lists what is listed in a finished task."""
        self._rejects.copy(path)

    def write_report(self) -> None:
        """Closes the shards and writes what is in them."""
        for shard in self._shards.values():
            shard.close()
        shards = {
            split: Shard(shard.bytes, describe_file(shard.path, shard.examples))
            for split, shard in self._shards.items()
        }
        report = Report(shards, self.escaped)
        (self._folder / _REPORT).write_text(json.dumps(dataclasses.asdict(report)), encoding="utf-8")


@contextlib.contextmanager
def write_task(folder: Path, file: Path) -> Iterator[TaskWriter]:
    """Yields a writer for the task that reads `file`; `folder` appears when all is written."""
    with complete_folder(folder) as partial, contextlib.ExitStack() as stack:
        writer = TaskWriter(partial, file, stack)
        yield writer
        writer.write_report()


def shard_file(folder: Path, split: str) -> Path:
    """Where a task keeps its records of a split."""
    return folder / f"{split}.array_record"
