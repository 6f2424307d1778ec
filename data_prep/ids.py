"""Which records of a dataset repeat an id: the first in the order of the source counts, whoever converted it."""

import hashlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

# A digest instead of the id; the number of the record's split among those of its task; and the row's place in its
# file, which the list of rejects names.
ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("split", "<u2"), ("row", "<u4")])
_IN_MEMORY = 2**20
_COPY = np.dtype([*ID.descr[:2], ("task", "<u4"), ("place", "<u4")])


def encode_id(record_id: str, row: int, split: int) -> bytes:
    """Returns an id as a task notes it: one element of `ID`."""
    digest = hashlib.blake2b(record_id.encode(), digest_size=16).digest()
    return digest + struct.pack("<HI", split, row)


def find_repeats(notes: Sequence[Path], *, in_memory: int = _IN_MEMORY) -> dict[int, np.ndarray]:
    """Returns, per task with repeats, the increasing places (int) of its records that are to be left out.

    Ids are dealt out to files by their leading bits, each file small enough to be sorted in memory: about `in_memory`
    ids are held at a time, however many there are.

    Args:
        notes: the files of noted ids, one per task, in the order of the tasks.
        in_memory: ids to hold.
    """
    total = sum(path.stat().st_size for path in notes) // ID.itemsize
    parts = -(-total // in_memory)
    found: dict[int, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in _deal(notes, max(parts, 1), Path(folder)):
            repeats = _repeats(np.fromfile(part, _COPY))
            for task in np.unique(repeats["task"]):
                found.setdefault(int(task), []).append(repeats["place"][repeats["task"] == task])
    return {task: np.sort(np.concatenate(places)) for task, places in sorted(found.items())}


def _deal(notes: Sequence[Path], parts: int, folder: Path) -> Iterator[Path]:
    paths = [folder / str(part) for part in range(parts)]
    files = [path.open("wb") for path in paths]
    for task, path in enumerate(notes):
        ids = np.fromfile(path, ID)
        copies = np.zeros(len(ids), _COPY)
        copies["high"], copies["low"], copies["task"] = ids["high"], ids["low"], task
        copies["place"] = np.arange(len(ids))
        part_of = copies["high"] % parts
        for part in np.unique(part_of):
            copies[part_of == part].tofile(files[part])
    for file in files:
        file.close()
    yield from paths


def _repeats(copies: np.ndarray) -> np.ndarray:
    """Those of `copies` that have an earlier one with the same digest."""
    order = np.lexsort((copies["place"], copies["task"], copies["low"], copies["high"]))
    ordered = copies[order]
    same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
    return ordered[1:][same]
