"""What a model reads: texts and images in, padded arrays out."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int, UInt8

from mmrpt_jax.data.images import resize_image
from mmrpt_jax.data.prompts import encode_prompt_ids, encode_prompts
from mmrpt_jax.data.tokenizer import Tokenizer
from mmrpt_jax.masking import GREY, hide_patches
from mmrpt_jax.models import PromptTokens

Pixels = UInt8[np.ndarray, "h w 3"]


class Processor(Protocol):
    """Between records and the arrays of one model. A *view* is what the model sees of the images of one prompt.

    Attributes:
        tokenizer: of the model.
    """

    tokenizer: Tokenizer

    def view(self, *images: Pixels) -> Any:
        """What the model sees of a prompt's images, in their order; there may be none."""

    def count_images(self, view: Any) -> int:
        """The number of images that a view shows, so that a prompt has as many placeholders."""

    def inputs(self, texts: Sequence[str], views: Sequence[Any]) -> tuple[Any, PromptTokens]:
        """A batch: the views as `VLM.encode_prompt` takes images, and prompts with room for them.

        Prompts may differ in their number of images.

        Raises:
            TooLongError: a prompt or its images do not fit the largest length.
            ValueError: a prompt has not as many placeholders as images.
        """

    def prompts(
        self, texts: Sequence[str], *, lengths: Sequence[int] | None = None, answered: bool = True
    ) -> PromptTokens:
        """A batch of prompts without images.

        Args:
            texts: the prompts.
            lengths: buckets; None: those of prompts with images.
            answered: whether a text follows, so that the prompt says whose turn it is; False: a drawing does.

        Raises:
            TooLongError: a prompt does not fit the largest length.
        """

    def fits(self, text: str, *sizes: tuple[int, int]) -> bool:
        """Whether a prompt fits, with images of these sizes (height, width) in the places of its placeholders."""

    def hide(self, view: Any, tokens: Int[np.ndarray, " hidden"]) -> Any:
        """The view with grey in the place of the visual tokens of these numbers."""

    def heats(
        self, scores: Float[np.ndarray, " I"], *sizes: tuple[int, int]
    ) -> list[Float[np.ndarray, "rows columns"]]:
        """Scores of the visual tokens of images of these sizes, as a grid over the whole of each image."""


@dataclasses.dataclass(frozen=True)
class FixedSizeProcessor:
    """Every image is brought to one size, and takes as many tokens as it then has patches.

    Attributes:
        tokenizer: of the model.
        height: pixels.
        width: pixels.
        patch_size: pixels per visual token, each way.
        lengths: buckets of prompts.
    """

    tokenizer: Tokenizer
    height: int
    width: int
    patch_size: int
    lengths: Sequence[int]

    @property
    def _grid(self) -> tuple[int, int]:
        return self.height // self.patch_size, self.width // self.patch_size

    @property
    def _image_tokens(self) -> int:
        return self._grid[0] * self._grid[1]

    def view(self, *images: Pixels) -> tuple[Pixels, ...]:
        """The images in the model's size; the aspect ratio is not kept."""
        size = (self.height, self.width)
        return tuple(x if x.shape[:2] == size else resize_image(x, *size) for x in images)

    def count_images(self, view: Sequence[Pixels]) -> int:
        """As `Processor.count_images`."""
        return len(view)

    def inputs(
        self, texts: Sequence[str], views: Sequence[Sequence[Pixels]]
    ) -> tuple[UInt8[np.ndarray, "B C h w 3"], PromptTokens]:
        """As `Processor.inputs`; C is the largest number of images of a prompt, at least 1, grey where it has fewer.

        Placeholders take images in order, so that none is left for what is grey.
        """
        counts = [len(view) for view in views]
        images = np.full((len(views), max(1, *counts), self.height, self.width, 3), GREY, np.uint8)
        for row, view in enumerate(views):
            for place, image in enumerate(view):
                images[row, place] = image
        return images, self._encode(texts, images=counts, lengths=self.lengths)

    def prompts(
        self, texts: Sequence[str], *, lengths: Sequence[int] | None = None, answered: bool = True
    ) -> PromptTokens:
        """As `Processor.prompts`; there are no turns to tell."""
        return self._encode(texts, images=0, lengths=lengths or self.lengths)

    def _encode(
        self, texts: Sequence[str], *, images: int | Sequence[int], lengths: Sequence[int]
    ) -> PromptTokens:
        counts = {"image_tokens": self._image_tokens, "images": images}
        return encode_prompts(self.tokenizer, texts, lengths=lengths, **counts)

    def fits(self, text: str, *sizes: tuple[int, int]) -> bool:
        """As `Processor.fits`; all sizes take the same room."""
        ids = encode_prompt_ids(self.tokenizer, text, image_tokens=self._image_tokens)
        return 0 < len(ids) <= max(self.lengths)

    def hide(self, view: Sequence[Pixels], tokens: Int[np.ndarray, " hidden"]) -> tuple[Pixels, ...]:
        """As `Processor.hide`."""
        hidden = np.isin(np.arange(len(view) * self._image_tokens), tokens)
        masks = hidden.reshape(len(view), self._image_tokens)
        return tuple(
            hide_patches(image, mask, self.patch_size) for image, mask in zip(view, masks, strict=True)
        )

    def heats(
        self, scores: Float[np.ndarray, " I"], *sizes: tuple[int, int]
    ) -> list[Float[np.ndarray, "rows columns"]]:
        """As `Processor.heats`."""
        return list(np.reshape(scores, (len(sizes), *self._grid)))
