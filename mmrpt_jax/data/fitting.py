"""Texts that fit: what the largest lengths of a config cannot hold is left out beforehand, and counted."""

from collections import Counter
from collections.abc import Callable, Sequence

from mmrpt_jax.data.records import MappedSource, RandomAccess, Record

NOTHING_LEFT = "records with no caption to use"


def keep_captions(
    source: RandomAccess[Record], misfit: Callable[[Record, str], str | None]
) -> tuple[MappedSource[Record], Counter[str]]:
    """Reads all captions once and keeps those that fit.

    Args:
        source: records.
        misfit: why a caption of a record does not fit beside its image, in few words, or None; nothing is ever cut off
            to make it fit.

    Returns:
        The records that keep a caption, with the captions that they keep; and how many captions were left out for which
        reason, and how many records, those that had no caption included.

    Raises:
        ValueError: no record is left.
    """
    kept: list[tuple[int, Sequence[int]]] = []
    left: Counter[str] = Counter()
    for index in range(len(source)):
        record = source[index]
        reasons = [misfit(record, text) for text in record["captions"]]
        left.update(reason for reason in reasons if reason)
        places = [place for place, reason in enumerate(reasons) if reason is None]
        if places:
            kept.append((index, places))
        else:
            left[NOTHING_LEFT] += 1
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
