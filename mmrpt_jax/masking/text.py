"""Choose the spans of a caption to hide, hide them, and put answers back.

A span is an inclusive pair of word indices `(first, last)` into the units of `dependency.word_spans`, which
count punctuation marks as words of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from mmrpt_jax.dependency.spans import word_spans
from mmrpt_jax.dependency.thresholds import threshold
from mmrpt_jax.masking.stopwords import is_content_word, is_word

WordSpan = tuple[int, int]
Granularity = Literal["sentence_then_word", "sentence", "word"]

_QUANTILE = MappingProxyType({"kind": "quantile", "quantile": 0.7})


class MaskedCaption(NamedTuple):
    """What the model is shown and what it is asked for."""

    masked_text: str
    """The caption with every hidden span replaced by the mask token."""
    answers: tuple[str, ...]
    """The hidden texts, in the order of the mask tokens."""


def choose_spans(
    words: Sequence[str],
    word_scores: ArrayLike,
    sentence_of_word: ArrayLike,
    sentence_scores: ArrayLike,
    *,
    granularity: Granularity = "sentence_then_word",
    sentence_threshold: Mapping[str, Any] = _QUANTILE,
    word_threshold: Mapping[str, Any] = _QUANTILE,
    max_spans: int = 1,
    max_words: int = 3,
    rng: np.random.Generator | None = None,
) -> list[WordSpan]:
    """Chooses the spans of one caption that need the image most.

    Sentences with score ≥ τ are kept (arXiv 2512.07203). Inside them, neighbouring content words with score ≥
    their own τ, taken over the content words of the kept sentences, grow to phrases of at most `max_words`;
    of a longer run the window with the highest mean stays. The published method's word step is unknown: this
    one is ours.

    Args:
      words: units of the caption, punctuation included.
      word_scores: dependency per word.
      sentence_of_word: index into `sentence_scores` of each word's sentence, -1 for none.
      sentence_scores: dependency per sentence.
      granularity: "sentence_then_word"; "sentence" hides whole sentences up to their final punctuation, of
        any length; "word" grows phrases anywhere, without the sentence step.
      sentence_threshold: keyword arguments of `dependency.threshold` for sentences.
      word_threshold: keyword arguments of `dependency.threshold` for words.
      max_spans: most spans returned.
      max_words: most words in a phrase.
      rng: breaks ties at random; the earlier span first if None.

    Returns:
      Disjoint spans by falling mean word score (sentence score for "sentence"); empty if nothing qualifies.

    Raises:
      ValueError: if words, scores and sentence indices differ in length, or for an unknown granularity.
    """
    scores, sentences = np.asarray(word_scores, float), np.asarray(sentence_of_word, int)
    by_sentence = np.asarray(sentence_scores, float)
    if not len(words) == len(scores) == len(sentences):
        raise ValueError(
            f"choose_spans needs a score and a sentence per word, got {len(words)} words, "
            f"{len(scores)} scores and {len(sentences)} sentence indices."
        )
    if granularity not in ("sentence_then_word", "sentence", "word"):
        raise ValueError(f"granularity={granularity!r}: use 'sentence_then_word', 'sentence' or 'word'.")
    kept = np.ones(len(words), bool)
    if granularity != "word":
        spoken = np.isin(np.arange(by_sentence.size), sentences)
        passed = spoken & (by_sentence >= threshold(by_sentence, spoken, **sentence_threshold))
        kept = np.isin(sentences, np.flatnonzero(passed))
    if granularity == "sentence":
        scored = _whole_sentences(by_sentence, sentences, kept & _each(words, is_word))
    else:
        candidate = kept & _each(words, is_content_word)
        chosen = candidate & (scores >= threshold(scores, candidate, **word_threshold))
        scored = [_best_window(scores, run, max_words) for run in _runs(chosen, sentences)]
    ties = range(len(scored)) if rng is None else rng.permutation(len(scored))
    ranked = sorted(zip(scored, ties, strict=True), key=lambda item: (-item[0][0], item[1]))
    return [span for (_, span), _ in ranked[:max_spans]]


def random_spans(
    words: Sequence[str], rng: np.random.Generator, *, max_spans: int = 1, max_words: int = 3
) -> list[WordSpan]:
    """Chooses spans uniformly among all windows of 1 to `max_words` words: the random baseline.

    Windows hold no punctuation. Spans do not touch each other; fewer than `max_spans` come back where the
    caption has no room.
    """
    allowed = _each(words, is_word)
    return _random_windows(_runs(allowed, np.zeros(len(words), int)), rng, max_spans, max_words)


def content_word_spans(
    words: Sequence[str], rng: np.random.Generator, *, max_spans: int = 1, max_words: int = 3
) -> list[WordSpan]:
    """Chooses spans uniformly among all windows of 1 to `max_words` content words, blind to any score.

    The content-word baseline of Bitton et al. (arXiv 2109.02040), who mask such words for vision-and-language
    models.
    """
    allowed = _each(words, is_content_word)
    return _random_windows(_runs(allowed, np.zeros(len(words), int)), rng, max_spans, max_words)


def apply_mask(
    text: str,
    spans: Sequence[WordSpan],
    *,
    mask_token: str = "[MASK]",
    context: Literal["bidirectional", "left_only"] = "bidirectional",
    offsets: Sequence[tuple[int, int]] | None = None,
) -> MaskedCaption:
    """Replaces spans by the mask token; every other character stays as it is.

    Args:
      text: the caption.
      spans: disjoint word spans in any order.
      mask_token: what stands in the place of a span.
      context: "left_only" also drops the text right of the last span.
      offsets: character ranges of the words; those of `dependency.word_spans` if None.

    Returns:
      The masked text and the answers, in reading order.

    Raises:
      ValueError: if spans overlap or lie outside the caption, if the caption holds the mask token, or for an
        unknown context.
    """
    if context not in ("bidirectional", "left_only"):
        raise ValueError(f"context={context!r}: use 'bidirectional' or 'left_only'.")
    offsets = word_spans(text) if offsets is None else offsets
    pieces, answers, end = [], [], 0
    for first, last in sorted(spans):
        if not 0 <= first <= last < len(offsets) or offsets[first][0] < end:
            raise ValueError(f"spans {list(spans)} overlap or lie outside a caption of {len(offsets)} words.")
        pieces.append(text[end : offsets[first][0]])
        end = offsets[last][1]
        answers.append(text[offsets[first][0] : end])
    pieces.append("" if spans and context == "left_only" else text[end:])
    masked = mask_token.join(pieces)
    if masked.split(mask_token) != pieces:
        raise ValueError(
            f"the caption holds the mask token {mask_token!r}: escape it or choose another: {text!r}."
        )
    return MaskedCaption(masked, tuple(answers))


def restore(masked_text: str, answers: Sequence[str], *, mask_token: str = "[MASK]") -> str:
    """Puts one answer in the place of each mask token: the inverse of `apply_mask`, or a model's completion.

    Raises:
      ValueError: if the numbers of mask tokens and answers differ.
    """
    pieces = masked_text.split(mask_token)
    if len(pieces) != len(answers) + 1:
        raise ValueError(f"{len(pieces) - 1} mask tokens but {len(answers)} answers in {masked_text!r}.")
    return "".join(part for pair in zip(pieces, [*answers, ""], strict=True) for part in pair)


def _each(words: Sequence[str], test: Callable[[str], bool]) -> Bool[np.ndarray, " W"]:
    return np.array([test(word) for word in words], bool)


def _runs(chosen: Bool[np.ndarray, " W"], sentences: Int[np.ndarray, " W"]) -> list[WordSpan]:
    """Returns the maximal runs of chosen neighbours that lie in one sentence."""
    runs: list[WordSpan] = []
    for index in np.flatnonzero(chosen).tolist():
        if runs and runs[-1][1] == index - 1 and sentences[index] == sentences[index - 1]:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def _whole_sentences(
    by_sentence: Float[np.ndarray, " Z"], sentences: Int[np.ndarray, " W"], spoken: Bool[np.ndarray, " W"]
) -> list[tuple[float, WordSpan]]:
    """Returns each sentence's score and the span from its first to its last word that is no punctuation."""
    scored = []
    for sentence in np.unique(sentences[spoken]):
        members = np.flatnonzero(spoken & (sentences == sentence))
        scored.append((float(by_sentence[sentence]), (int(members[0]), int(members[-1]))))
    return scored


def _best_window(scores: Float[np.ndarray, " W"], run: WordSpan, max_words: int) -> tuple[float, WordSpan]:
    """Returns the window of a run, as long as allowed, with the highest mean score (the first of equals)."""
    length = min(max_words, run[1] - run[0] + 1)
    starts = range(run[0], run[1] - length + 2)
    means = [float(scores[start : start + length].mean()) for start in starts]
    best = int(np.argmax(means))
    return means[best], (starts[best], starts[best] + length - 1)


def _random_windows(
    runs: Sequence[WordSpan], rng: np.random.Generator, max_spans: int, max_words: int
) -> list[WordSpan]:
    """Draws windows of the runs uniformly, one after the other, each apart from those before."""
    windows = [
        (first, last)
        for start, end in runs
        for first in range(start, end + 1)
        for last in range(first, min(first + max_words, end + 1))
    ]
    chosen: list[WordSpan] = []
    for index in rng.permutation(len(windows)):
        first, last = windows[index]
        if len(chosen) < max_spans and all(last + 1 < a or b + 1 < first for a, b in chosen):
            chosen.append((first, last))
    return chosen
