"""Grain pipelines in which batch number `step` is a pure function of (seed, step)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmrpt_jax.data.damage import Note, ignore, read_or_next
from mmrpt_jax.data.records import RandomAccess

Transform = Callable[[Any], Any] | grain.transforms.RandomMap


def make_dataset(
    source: RandomAccess[Any],
    *,
    seed: int,
    batch_size: int,
    transform: Transform | None = None,
    shuffle: bool = True,
    repeat: bool = True,
    note: Note = ignore,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Returns batches; number `step` depends on (seed, step) alone, not on what was read before.

    The order is global: all processes shuffle alike (anew each epoch), and each makes its own `rows` of every batch, so
    that together they have the batch that one process would have.

    A record that is damaged gives its place to the next one of the source (`read_or_next`), whoever reads it and when.

    Args:
        source: random-access examples.
        seed: seeds the order and the random transform; the same in all processes.
        batch_size: examples in a batch.
        transform: example -> example, on Grain's reader threads; a `grain.transforms.RandomMap` also receives
            a NumPy generator that depends on (seed, global position) alone. Its results are mappings, see
            `collate`.
        shuffle: whether to shuffle.
        repeat: endless epochs; otherwise one epoch, whose last batch may be smaller.
        note: is told of records that cannot be used, on the reader threads.
        rows: which examples of each batch to make, for example `training.processes.Share.rows(batch_size)`; the others
            are never read. Rising; all of them if None. Without `repeat`, a last batch that is smaller has no such
            rows, and is left out.

    Raises:
        ValueError: `source` is empty, or the batch size or the rows are out of range.
    """
    if len(source) == 0:
        raise ValueError("the source has no examples")
    rows = range(batch_size) if rows is None else rows
    if not (len(rows) and 0 <= min(rows) <= max(rows) < batch_size):
        raise ValueError(f"bad batch_size={batch_size} or rows={list(rows)}")
    dataset = grain.MapDataset.source(range(len(source))).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    if repeat:
        dataset = dataset.repeat()
    # Transformed before rows are picked, so that random numbers follow the global position.
    dataset = _reading(dataset, source, transform, note)
    if len(rows) < batch_size:
        dataset = _Rows(dataset, rows, batch_size)
    return dataset.batch(len(rows), drop_remainder=repeat, batch_fn=collate)


class _Rows(grain.MapDataset):
    """Some rows of every batch, batch after batch."""

    def __init__(self, parent: grain.MapDataset, rows: Sequence[int], batch_size: int):
        super().__init__(parent)
        self._rows, self._batch_size = [int(row) for row in rows], batch_size

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, place = divmod(index, len(self._rows))
        return self._parent[batch * self._batch_size + self._rows[place]]


def _reading(
    indices: grain.MapDataset,
    source: RandomAccess[Any],
    transform: Transform | None,
    note: Note,
) -> grain.MapDataset:
    """Numbers of records -> examples."""
    if isinstance(transform, grain.transforms.RandomMap):
        return indices.random_map(
            lambda index, rng: read_or_next(
                source, index, lambda record: transform.random_map(record, rng), note
            )
        )
    return indices.map(lambda index: read_or_next(source, index, transform or (lambda record: record), note))


def make_iterator(
    dataset: grain.MapDataset, *, start_step: int = 0, num_threads: int = 2, prefetch: int = 4
) -> grain.DatasetIterator:
    """Iterates over `dataset` from batch `start_step`, reading ahead on threads.

    ``get_state()`` and ``set_state()`` of the iterator save and restore its position; Grain's checkpoint
    handlers for Orbax take the iterator itself.

    Args:
        dataset: batches from `make_dataset`.
        start_step: the first batch.
        num_threads: reader threads; 0 reads in the caller's thread.
        prefetch: batches read ahead; 0 reads none.
    """
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    iterator = iter(dataset.to_iter_dataset(options))
    grain.experimental.set_next_index(iterator, start_step)
    return iterator


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stacks arrays and numbers along a new first axis; anything else (text, bytes, lists) becomes a list.

    Raises:
        ValueError: the examples differ in their fields or in the shape of an array.
    """
    fields = examples[0].keys()
    if any(example.keys() != fields for example in examples):
        raise ValueError(
            f"examples of one batch have different fields: {sorted({tuple(e) for e in examples})}"
        )
    return {field: _stack(field, [example[field] for example in examples]) for field in fields}


def _stack(field: str, values: list[Any]) -> Any:
    if not isinstance(values[0], np.ndarray | np.generic | int | float | bool):
        return values
    shapes = {np.shape(value) for value in values}
    if len(shapes) > 1:
        raise ValueError(
            f"field {field!r} has the shapes {sorted(shapes)} within one batch; pad or resize it first"
        )
    return np.stack(values)
