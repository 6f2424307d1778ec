"""One task of a conversion, wherever it runs: a part of the source becomes shards, from which repeats are taken out."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data_prep.adapters import Adapter
from data_prep.errors import Reject
from data_prep.ids import ID
from data_prep.rows import check_item
from data_prep.sources.base import Source, Task
from data_prep.task_files import IDS, REJECTS, Report, shard_file, write_task
from mmrpt_jax.data.records import RECORD_FEATURES, KeepEncoded
from mmrpt_jax.data.shards import read_shard


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is done to every row.

    Attributes:
        source: where rows come from.
        adapter: what a row means.
        split_of: (split of the file, group) -> split.
        max_pixels: larger images are rejected.
    """

    source: Source
    adapter: Adapter
    split_of: Callable[[str, str], str]
    max_pixels: int


def run_task(conversion: Conversion, task: Task, folder: Path, scratch: Path) -> None:
    """Converts a task into `folder`, unless that has been done.

    Args:
        conversion: what to do.
        task: to which rows.
        folder: where the result goes.
        scratch: what the source's plan wrote.
    """
    if folder.exists():
        return
    with write_task(folder, Path(task.file)) as writer:
        for item in conversion.source.read(task, scratch):
            for outcome in check_item(item, conversion.adapter, max_pixels=conversion.max_pixels):
                if isinstance(outcome, Reject):
                    writer.reject(outcome, item.number)
                    continue
                split = conversion.split_of(task.split, outcome.record["group"])
                writer.add(split, outcome.record, item.number)
                writer.escaped += outcome.escaped


def leave_out(task: Task, done: Path, places: Sequence[int], folder: Path) -> None:
    """Copies a finished task to `folder`, unless that has been done, less the records at `places`.

    Args:
        task: what was converted.
        done: the folder of the finished task.
        places: among all records of the task; listed as rejects.
        folder: where the copy goes.
    """
    if folder.exists():
        return
    ids = np.fromfile(done / IDS, ID)
    report = Report.read(done)
    splits = list(report.shards)
    records = [read_shard(shard_file(done, split)) for split in splits]
    repeats = set(places)
    with write_task(folder, Path(task.file)) as writer:
        writer.escaped = report.escaped
        writer.copy_rejects(done / REJECTS)
        for place, (number, row) in enumerate(zip(ids["split"], ids["row"], strict=True)):
            data = next(records[number])
            if place in repeats:
                writer.reject(_repeated(data), int(row))
            else:
                writer.shard(splits[number]).add_serialized(data)


def _repeated(data: bytes) -> Reject:
    decoders = {"images": KeepEncoded()}
    record_id = RECORD_FEATURES.deserialize_example_np(data, decoders=decoders)["id"].decode()
    return Reject("duplicate id", f"{record_id!r} was used by an earlier row")
