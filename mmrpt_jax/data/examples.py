"""From records to the examples that batches are made of."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import grain
import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image, resize_image
from mmrpt_jax.data.nlvr import permute_boxes
from mmrpt_jax.data.tokenizer import MASK
from mmrpt_jax.dependency import word_spans
from mmrpt_jax.masking import apply_mask, hide_patches, random_spans

# Stands between the answers where a prompt hides several spans.
ANSWER_SEPARATOR = " ; "


Augment = Callable[[UInt8[np.ndarray, "h w 3"], np.random.Generator], UInt8[np.ndarray, "h w 3"]]
AUGMENTATIONS: Mapping[str, Augment | None] = MappingProxyType({"none": None, "permute_boxes": permute_boxes})


def load_image(
    data: bytes,
    height: int,
    width: int,
    augment: Augment | None = None,
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an encoded image, augments it, and brings it to the model's size."""
    image = decode_image(data)
    if augment is not None:
        image = augment(image, rng)
    return image if image.shape[:2] == (height, width) else resize_image(image, height, width)


def captions_of(record: Mapping[str, Any]) -> Sequence[str]:
    """The captions of a record.

    Raises:
        ValueError: there are none.
    """
    if not record["captions"]:
        raise ValueError(f"record {record['id']!r} has no captions; leave it out of the split")
    return record["captions"]


@dataclasses.dataclass(frozen=True)
class PickCaptions(grain.transforms.RandomMap):
    """record -> image and `count` of its captions (with repetition only where there are too few)."""

    height: int
    width: int
    count: int
    augment: Augment | None = None

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the captions."""
        captions = captions_of(record)
        chosen = rng.choice(len(captions), self.count, replace=len(captions) < self.count)
        return {
            "image": load_image(record["image"], self.height, self.width, self.augment, rng),
            "captions": [escape_placeholders(captions[i]) for i in chosen],
        }


@dataclasses.dataclass(frozen=True)
class HideRandomSpan(grain.transforms.RandomMap):
    """record -> image and its first caption with one random span of up to `max_words` words hidden.

    A caption without words ("!?") is hidden whole.
    """

    height: int
    width: int
    max_words: int
    context: Literal["bidirectional", "left_only"] = "bidirectional"
    augment: Augment | None = None

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the span."""
        text = escape_placeholders(captions_of(record)[0])
        words = [text[start:end] for start, end in word_spans(text)]
        spans = random_spans(words, rng, max_words=self.max_words)
        masked = apply_mask(text, spans, mask_token=MASK, context=self.context) if spans else (MASK, (text,))
        image = load_image(record["image"], self.height, self.width, self.augment, rng)
        return {"image": image, "masked": masked[0], "answer": ANSWER_SEPARATOR.join(masked[1])}


@dataclasses.dataclass(frozen=True)
class PickMask(grain.transforms.RandomMap):
    """record joined with its masks -> id, image without its hidden patches, and the `fields` of one mask."""

    height: int
    width: int
    patch_size: int
    fields: tuple[str, ...]
    augment: Augment | None = None

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws one of the record's masks."""
        chosen = int(rng.integers(len(record["masked"])))
        image = load_image(record["image"], self.height, self.width, self.augment, rng)
        if len(record["hidden_patches"]):
            patches = (self.height // self.patch_size) * (self.width // self.patch_size)
            image = hide_patches(
                image, np.isin(np.arange(patches), record["hidden_patches"]), self.patch_size
            )
        return {"id": record["id"], "image": image} | {name: record[name][chosen] for name in self.fields}


@dataclasses.dataclass(frozen=True)
class PickDrawing(grain.transforms.RandomMap):
    """prompt with its picture -> text, image, and a seed for noise; a share of the texts is left out.

    What is learned without a text is what guidance steers away from.
    """

    text_dropout: float

    def random_map(self, drawing: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the seed, and whether the text is left out."""
        dropped = rng.random() < self.text_dropout
        text = "" if dropped else drawing["prompt"].text
        return {"text": text, "image": drawing["image"], "seed": rng.integers(2**31, dtype=np.int32)}


def stack_images(images: Sequence[np.ndarray] | np.ndarray) -> UInt8[np.ndarray, "B 1 h w 3"]:
    """One image per prompt."""
    return np.asarray(images)[:, None]
