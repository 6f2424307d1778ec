"""Test items, made without any model: hidden spans and cloze questions of a world, hidden words of a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.tokenizer import MASK
from mmrpt_jax.dependency import word_spans
from mmrpt_jax.masking import apply_mask, content_word_spans
from mmrpt_jax.scenes import KINDS, WORLDS, describe, question_at, render, sample_scene, split_seed

Context = Literal["bidirectional", "left_only"]


class FillItem(NamedTuple):
    """A caption of images with one hidden span; `kind` names what is hidden (color, shape, ..., word)."""

    images: Sequence[UInt8[np.ndarray, "h w 3"]]
    masked: str
    answer: str
    kind: str


class ClozeItem(NamedTuple):
    """A question, the sentence with one blank that answers it, and what may stand there.

    `reply` is the answer as one would say it; `bias_answer` is the training world's guess, if it has one.
    """

    image: UInt8[np.ndarray, "h w 3"]
    question: str
    cloze: str
    candidates: tuple[str, ...]
    answer: str
    reply: str
    kind: str
    bias_answer: str | None


def scene_fill_items(
    world: str, *, split: str, stream: int, count: int, context: Context = "bidirectional"
) -> list[FillItem]:
    """`count` captions of a world, each with one attribute span hidden, kinds and words as they come."""
    seed, items, index = split_seed(split, stream), [], 0
    while len(items) < count:
        scene = sample_scene(WORLDS[world], seed, index)
        caption = describe(scene, seed, index)
        spans, start = [], 0
        for sentence in caption.sentences:
            spans += [(start + s.start, start + s.stop - 1, s.kind) for s in sentence.attribute_spans]
            start += len(sentence.words)
        if spans:
            first, last, kind = spans[np.random.default_rng((seed, index)).integers(len(spans))]
            offsets = _word_offsets(caption.text)
            masked = apply_mask(
                caption.text, [(first, last)], mask_token=MASK, context=context, offsets=offsets
            )
            items.append(FillItem([render(scene)], masked.masked_text, masked.answers[0], kind))
        index += 1
    return items


def scene_cloze_items(world: str, *, split: str, stream: int, count: int) -> list[ClozeItem]:
    """`count` questions of a world, all kinds in equal numbers, answers balanced within each kind."""
    seed, items = split_seed(split, stream), []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        scene, q = question_at(WORLDS[world], kind, seed, index // len(KINDS))
        items.append(
            ClozeItem(
                render(scene), q.question, q.cloze, q.candidates, q.answer, q.reply, kind, q.bias_answer
            )
        )
    return items


def record_fill_item(
    record: Mapping[str, Any],
    *,
    seed: int,
    index: int,
    context: Context = "bidirectional",
) -> FillItem | None:
    """The record's first caption with one random content word hidden; None if it has none to hide, or no image."""
    if not record["captions"] or not record["images"]:
        return None
    text = escape_placeholders(record["captions"][0])
    words = [text[start:end] for start, end in word_spans(text)]
    spans = content_word_spans(words, np.random.default_rng((seed, index)), max_words=1)
    if not spans:
        return None
    masked = apply_mask(text, spans, mask_token=MASK, context=context)
    images = [decode_image(image) for image in record["images"]]
    return FillItem(images, masked.masked_text, masked.answers[0], "word")


def _word_offsets(text: str) -> list[tuple[int, int]]:
    """Character ranges of space-separated words, as the scenes count them."""
    offsets, start = [], 0
    for word in text.split(" "):
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return offsets
