"""From tokens to words to sentences: where the units of a caption lie, and pooling of scores over them.

Spans are half-open character ranges `(start, end)` into the caption. Text helpers run on the host; pooling is
pure JAX.
"""

import re
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Span = tuple[int, int]

# A word keeps its inner apostrophes, hyphens and decimal points; every other visible character stands alone.
# U+0300..U+036F are combining accents, which \w leaves out.
_LETTERS = r"[\w\u0300-\u036f]+"
_WORD = re.compile(rf"{_LETTERS}(?:['’\-]{_LETTERS}|(?<=\d)[.,](?=\d){_LETTERS})*|\S")
_SENTENCE_END = re.compile(r"""[.!?…]+["'”’)\]]*(?=\s|$)|[。！？]+["'”’)\]」』]*|\n+""")
_ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "prof", "st", "vs", "approx", "fig", "e.g", "i.e", "cf"))
_ABBREVIATIONS_THAT_MAY_END = frozenset(("etc", "a.m", "p.m", "u.s", "u.k", "inc", "ltd", "co", "jr", "sr"))


def word_spans(text: str) -> list[Span]:
    """Returns the spans of words and punctuation marks: "A dog's toy." has four, the full stop included."""
    return [match.span() for match in _WORD.finditer(text)]


def sentence_spans(text: str) -> list[Span]:
    """Splits a caption into sentences, without the white space between them.

    A sentence ends at ".", "!" or "?" (closing quotes included) before white space or the end, at their
    full-width forms, and at line breaks. The next sentence need not begin with a capital, and the full stop
    may stand alone ("there is a red circle . it is small ."). Abbreviations, single capital initials, and an
    ellipsis that goes on in lower case do not end a sentence.

    Args:
      text: the caption.

    Returns:
      Spans in order; together they hold every character that is not white space.
    """
    ends = [m.end() for m in _SENTENCE_END.finditer(text) if not _goes_on(text, m.start(), m.end())]
    spans = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        piece = text[start:end]
        if stripped := piece.strip():
            first = start + piece.index(stripped)
            spans.append((first, first + len(stripped)))
    return spans


def _goes_on(text: str, start: int, end: int) -> bool:
    """Says whether the stop at text[start:end] stands inside a sentence."""
    mark = text[start:end]
    following = text[end:].lstrip()[:1]
    if mark in ("..", "...", "…"):
        return following.islower()
    if mark != ".":
        return False
    word = re.split(r"[\s(\[\"']", text[:start])[-1]
    is_initial = len(word) == 1 and word.isupper() and word not in "AI"
    if is_initial or word.lower() in _ABBREVIATIONS:
        return True
    return word.lower() in _ABBREVIATIONS_THAT_MAY_END and following.islower()


def tokens_to_segments(token_offsets: Sequence[Span], spans: Sequence[Span]) -> Int[np.ndarray, " T"]:
    """Finds for each token the span that it overlaps most (the first of equals).

    Aligns a tokenizer's character offsets with words or sentences, and words with sentences.

    Args:
      token_offsets: half-open character ranges in any order; special tokens are empty ranges.
      spans: disjoint ranges in ascending order.

    Returns:
      Index of the span per token, -1 where it overlaps none.
    """
    ends = np.asarray([end for _, end in spans], np.int64)
    segments = np.full(len(token_offsets), -1, np.int32)
    for token, (start, end) in enumerate(token_offsets):
        most = 0
        for index in range(int(np.searchsorted(ends, start, side="right")), len(spans)):
            if spans[index][0] >= end:
                break
            overlap = min(end, spans[index][1]) - max(start, spans[index][0])
            if overlap > most:
                most, segments[token] = overlap, index
    return segments


def segment_pool(
    values: Float[Array, " T"],
    segment_ids: Int[Array, " T"],
    num_segments: int,
    *,
    reduce: Literal["mean", "sum", "max"] = "mean",
    valid: Bool[Array, " T"] | None = None,
    empty: float = 0.0,
) -> Float[Array, " num_segments"]:
    """Pools token scores over words or sentences.

    MMRPT's sentence score is the mean over the sentence's tokens (not over its words): pool from tokens
    directly. For batches, vmap.

    Args:
      values: one score per token.
      segment_ids: index of the token's segment; ids outside [0, num_segments) are left out.
      num_segments: static number of segments.
      reduce: "mean", "sum" or "max".
      valid: tokens that count; all if None.
      empty: result for a segment without tokens.

    Returns:
      One score per segment, float32.

    Raises:
      ValueError: for an unknown `reduce`.
    """
    counted = (segment_ids >= 0) & (segment_ids < num_segments)
    counted = counted if valid is None else counted & valid
    # One spare segment takes what is left out.
    ids = jnp.where(counted, segment_ids, num_segments)
    count = jax.ops.segment_sum(counted.astype(jnp.float32), ids, num_segments + 1)[:-1]
    values = values.astype(jnp.float32)
    if reduce == "max":
        pooled = jax.ops.segment_max(values, ids, num_segments + 1)[:-1]
    elif reduce in ("mean", "sum"):
        pooled = jax.ops.segment_sum(values, ids, num_segments + 1)[:-1]
        pooled = pooled / jnp.maximum(count, 1.0) if reduce == "mean" else pooled
    else:
        raise ValueError(f"reduce={reduce!r}: use 'mean', 'sum' or 'max'.")
    return jnp.where(count > 0, pooled, empty)
