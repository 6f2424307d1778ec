"""Texts that fit: what the largest lengths of a config cannot hold is left out beforehand, and counted."""

import dataclasses
from collections.abc import Callable, Sequence

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.prompts import TooLongError, encode_prompt_ids
from mmrpt_jax.data.records import MappedSource, RandomAccess, Record
from mmrpt_jax.data.tokenizer import EOS, Tokenizer


@dataclasses.dataclass(frozen=True)
class Room:
    """How many tokens prompts and texts may take.

    Attributes:
        tokenizer: counts them.
        image_tokens: visual tokens of a prompt's image.
        prompt: the longest prompt.
        text: the longest text behind one, end token included.
    """

    tokenizer: Tokenizer
    image_tokens: int
    prompt: int
    text: int

    def holds_prompt(self, prompt: str) -> bool:
        """Whether a prompt with its placeholders fits."""
        return len(encode_prompt_ids(self.tokenizer, prompt, image_tokens=self.image_tokens)) <= self.prompt

    def holds_text(self, text: str) -> bool:
        """Whether a text fits that is to be learned or scored."""
        return len(self.tokenizer.encode(f"{escape_placeholders(text)}{EOS}").ids) <= self.text


def keep_prompts(
    source: RandomAccess[Record], encode: Callable[[Record], object]
) -> tuple[MappedSource[Record], int]:
    """Tries all prompts once and keeps the records whose prompts fit; an image is never cut to make one fit.

    Args:
        source: records.
        encode: makes a record's prompts, as training will, from the sizes of its images (`image_size`); raises
            `TooLongError` for one that does not fit.

    Returns:
        The records that are kept, and how many were left out.

    Raises:
        ValueError: no record is left.
    """
    kept = [index for index in range(len(source)) if _fits(encode, source[index])]
    if not kept:
        raise ValueError(f"of {len(source)} records none has a prompt that fits")
    return MappedSource(kept, lambda _, index: source[index]), len(source) - len(kept)


def keep_captions(
    source: RandomAccess[Record], fits: Callable[[str], bool]
) -> tuple[MappedSource[Record], int, int]:
    """Reads all captions once and keeps those that fit.

    Returns:
        The records that keep a caption, with the captions that they keep; how many captions and how many records (those
        that had none included) were left out.

    Raises:
        ValueError: no record is left.
    """
    kept: list[tuple[int, Sequence[int]]] = []
    captions = 0
    for index in range(len(source)):
        texts = source[index]["captions"]
        places = [place for place, text in enumerate(texts) if fits(text)]
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


def _fits(encode: Callable[[Record], object], record: Record) -> bool:
    try:
        encode(record)
    except TooLongError:
        return False
    return True
