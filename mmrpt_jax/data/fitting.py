"""Texts that fit: what the largest lengths of a config cannot hold is left out beforehand, and counted."""

from collections.abc import Callable, Sequence

from mmrpt_jax.data.damage import UNUSABLE, Note, ignore
from mmrpt_jax.data.records import MappedSource, RandomAccess, Record


def keep_captions(
    source: RandomAccess[Record], fits: Callable[[Record, str], bool], note: Note = ignore
) -> tuple[MappedSource[Record], int, int]:
    """Reads all captions once and keeps those that fit.

    Args:
        source: records.
        fits: whether a caption of a record fits, beside its image; nothing is ever cut off to make it fit.
        note: is told of records that are damaged, which are left out.

    Returns:
        The records that keep a caption, with the captions that they keep; how many captions and how many records (those
        that had none and the damaged ones included) were left out.

    Raises:
        ValueError: no record is left.
    """
    kept: list[tuple[int, Sequence[int]]] = []
    captions = 0
    for index in range(len(source)):
        try:
            record = source[index]
            texts = record["captions"]
            places = [place for place, text in enumerate(texts) if fits(record, text)]
        except UNUSABLE as error:
            note(f"number {index}", error)
            continue
        captions += len(texts) - len(places)
        if places:
            kept.append((index, places))
    if not kept:
        raise ValueError(f"of {len(source)} records none has a caption that fits ({captions} are too long)")

    def read(_: int, chosen: tuple[int, Sequence[int]]) -> Record:
        record = source[chosen[0]]
        texts: list[str] = [record["captions"][place] for place in chosen[1]]
        return Record(**(record | {"captions": texts}))

    return MappedSource(kept, read), captions, len(source) - len(kept)
