"""Texts that fit: what the largest lengths of a config cannot hold is left out beforehand, and counted."""

from collections import Counter
from collections.abc import Callable, Sequence

from mmrpt_jax.data.damage import Note, ignore, usable
from mmrpt_jax.data.records import MappedSource, RandomAccess, Record

NOTHING_LEFT = "records with no caption to use"
DAMAGED = "damaged records"


def keep_captions(
    source: RandomAccess[Record], misfit: Callable[[Record, str], str | None], note: Note = ignore
) -> tuple[MappedSource[Record], Counter[str]]:
    """Reads all captions once and keeps those that fit.

    Args:
        source: records.
        misfit: why a caption of a record does not fit beside its images, in few words, or None; nothing is ever cut off
            to make it fit.
        note: is told of records that are damaged, which are left out.

    Returns:
        The records that keep a caption, with the captions that they keep; and how many captions were left out for which
        reason, and how many records, those that had no caption included.

    Raises:
        ValueError: no record is left.
    """
    kept: list[tuple[int, Sequence[int]]] = []
    left: Counter[str] = Counter()
    read_so_far = 0
    for index, reasons in usable(
        source, lambda record: [misfit(record, x) for x in record["captions"]], note
    ):
        read_so_far += 1
        left.update(reason for reason in reasons if reason)
        places = [place for place, reason in enumerate(reasons) if reason is None]
        if places:
            kept.append((index, places))
        else:
            left[NOTHING_LEFT] += 1
    if damaged := len(source) - read_so_far:
        left[DAMAGED] = damaged
    if not kept:
        raise ValueError(f"of {len(source)} records none can be used: {describe(left)}")

    def read(_: int, chosen: tuple[int, Sequence[int]]) -> Record:
        record = source[chosen[0]]
        texts: list[str] = [record["captions"][place] for place in chosen[1]]
        return Record(**(record | {"captions": texts}))

    return MappedSource(kept, read), left


def describe(left: Counter[str]) -> str:
    """What was left out, as a sentence has it."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
