"""Prompts that a user wrote: kept apart from special tokens, short enough, and their unknown words counted."""

import re
from collections.abc import Sequence

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.tokenizer import Tokenizer
from mmrpt_jax.stages.checks import ConfigError

_NAMED = 5


def safe_prompts(
    tokenizer: Tokenizer, wording: Wording, texts: Sequence[str], lengths: Sequence[int]
) -> list[str]:
    """The texts with special tokens broken by a space, if all of them fit.

    Args:
        tokenizer: the run's.
        wording: the run's.
        texts: what to draw.
        lengths: `config.data.drawing_lengths`.

    Raises:
        ConfigError: a prompt is longer than the longest length; the message names the first.
    """
    safe = [escape_placeholders(text) for text in texts]
    sizes = [len(tokenizer.encode(wording.drawing_prompt(text)).ids) for text in safe]
    long = [place for place, size in enumerate(sizes) if size > max(lengths)]
    if long:
        first, others = long[0], f" (and {len(long) - 1} more)" if len(long) > 1 else ""
        raise ConfigError(
            f"prompt {first + 1}{others} is too long, with {sizes[first]} tokens where config.data.drawing_lengths "
            f"of the run allows {max(lengths)}: {texts[first]!r}"
        )
    return safe


def unknown_words_warning(tokenizer: Tokenizer, texts: Sequence[str]) -> str | None:
    """One sentence about words that the tokenizer must spell in pieces, or None if there are none.

    No text is unknown to a byte-level tokenizer; but one that was trained on a run's captions has a token for every
    word of theirs, so that a word in pieces is one that the model has hardly ever read.
    """
    found = {word: None for text in texts for word in unknown_words(tokenizer, text)}
    if not found:
        return None
    affected = sum(bool(unknown_words(tokenizer, text)) for text in texts)
    named = ", ".join(list(found)[:_NAMED]) + (", …" if len(found) > _NAMED else "")
    words = "1 word is" if len(found) == 1 else f"{len(found)} words are"
    return (
        f"{words} unknown to the model, in {affected} of {len(texts)} prompts, and spelt in pieces: {named}"
    )


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text, punctuation left out, that are no single token."""
    return [word for word in re.findall(r"\w+", text) if len(tokenizer.encode(word).ids) > 1]
