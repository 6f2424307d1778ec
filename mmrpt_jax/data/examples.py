"""From records to the examples that batches are made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image, resize_image

# Stands between the answers where a prompt hides several spans.
ANSWER_SEPARATOR = " ; "


def load_image(data: bytes, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an encoded image and brings it to the model's size."""
    image = decode_image(data)
    return image if image.shape[:2] == (height, width) else resize_image(image, height, width)


@dataclasses.dataclass(frozen=True)
class PickCaptions(grain.transforms.RandomMap):
    """record -> image and `count` of its captions (with repetition only where there are too few)."""

    height: int
    width: int
    count: int

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws the captions.

        Raises:
            ValueError: the record has none.
        """
        captions = record["captions"]
        if not captions:
            raise ValueError(f"record {record['id']!r} has no captions; leave it out of the split")
        chosen = rng.choice(len(captions), self.count, replace=len(captions) < self.count)
        return {
            "image": load_image(record["image"], self.height, self.width),
            "captions": [escape_placeholders(captions[i]) for i in chosen],
        }


@dataclasses.dataclass(frozen=True)
class PickMask(grain.transforms.RandomMap):
    """record joined with its masks -> image and one masked caption with what it hides."""

    height: int
    width: int

    def random_map(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Draws one of the record's masks."""
        chosen = int(rng.integers(len(record["masked"])))
        return {
            "id": record["id"],
            "image": load_image(record["image"], self.height, self.width),
            "masked": record["masked"][chosen],
            "answer": record["answer"][chosen],
            "sentence": record["sentence"][chosen],
        }


def stack_images(images: Sequence[np.ndarray] | np.ndarray) -> UInt8[np.ndarray, "B 1 h w 3"]:
    """One image per prompt."""
    return np.asarray(images)[:, None]
