"""From records to the examples that batches are made of."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import grain
import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.nlvr import permute_boxes
from mmrpt_jax.data.tokenizer import MASK
from mmrpt_jax.dependency import word_spans
from mmrpt_jax.masking import apply_mask, random_spans

# Stands between the answers where a prompt hides several spans.
ANSWER_SEPARATOR = " ; "


Pixels = UInt8[np.ndarray, "h w 3"]
Augment = Callable[[Pixels, np.random.Generator], Pixels]
AUGMENTATIONS: Mapping[str, Augment | None] = MappingProxyType({"none": None, "permute_boxes": permute_boxes})


# What a model sees of the images of a prompt, as `Processor.view`.
View = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class SeeImages:
    """Encoded images of a record -> what the model sees of them, each decoded and augmented."""

    view: View
    augment: Augment | None = None

    def __call__(self, encoded: Sequence[bytes], rng: np.random.Generator) -> Any:
        """Draws from `rng` what the augmentation needs, image by image."""
        images = map(decode_image, encoded)
        return self.view(*(image if self.augment is None else self.augment(image, rng) for image in images))


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
    """record -> view and `count` of its captions (with repetition only where there are too few)."""

    see: SeeImages
    count: int

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the captions."""
        captions = captions_of(record)
        chosen = rng.choice(len(captions), self.count, replace=len(captions) < self.count)
        return {
            "view": self.see(record["images"], rng),
            "captions": [escape_placeholders(captions[i]) for i in chosen],
        }


@dataclasses.dataclass(frozen=True)
class HideRandomSpan(grain.transforms.RandomMap):
    """record -> view and its first caption with one random span of up to `max_words` words hidden.

    A caption without words ("!?") is hidden whole.
    """

    see: SeeImages
    max_words: int
    context: Literal["bidirectional", "left_only"] = "bidirectional"

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the span."""
        text = escape_placeholders(captions_of(record)[0])
        words = [text[start:end] for start, end in word_spans(text)]
        spans = random_spans(words, rng, max_words=self.max_words)
        masked = apply_mask(text, spans, mask_token=MASK, context=self.context) if spans else (MASK, (text,))
        view = self.see(record["images"], rng)
        return {"view": view, "masked": masked[0], "answer": ANSWER_SEPARATOR.join(masked[1])}


@dataclasses.dataclass(frozen=True)
class PickMask(grain.transforms.RandomMap):
    """record joined with its masks -> id, view without its hidden patches, and the `fields` of one mask."""

    see: SeeImages
    hide: Callable[[Any, np.ndarray], Any]
    fields: tuple[str, ...]

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws one of the record's masks."""
        chosen = int(rng.integers(len(record["masked"])))
        view = self.see(record["images"], rng)
        if len(record["hidden_patches"]):
            view = self.hide(view, record["hidden_patches"])
        return {"id": record["id"], "view": view} | {name: record[name][chosen] for name in self.fields}


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
