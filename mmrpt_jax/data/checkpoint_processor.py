"""What a public checkpoint reads: its chat template, its tokenizer, its images in patches."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmrpt_jax.data.chat import encode_chat, user_message
from mmrpt_jax.data.checkpoint_tokenizer import CheckpointTokenizer
from mmrpt_jax.data.preprocessing.image_text import ImageText
from mmrpt_jax.data.preprocessing.patches import stack_patches
from mmrpt_jax.data.preprocessing.preprocessor import ImagePreprocessor, Layout
from mmrpt_jax.data.preprocessing.sizes import UnusableImageError
from mmrpt_jax.data.processor import Pixels
from mmrpt_jax.data.prompts import pad_prompts
from mmrpt_jax.masking import GREY
from mmrpt_jax.models import PromptTokens
from mmrpt_jax.models.patches import ImagePatches


class TiledView(NamedTuple):
    """What a checkpoint's tower sees of a prompt's images: their patches, and how each image appears."""

    patches: ImagePatches
    layouts: tuple[Layout, ...]


@dataclasses.dataclass(frozen=True)
class CheckpointProcessor:
    """Images and chat as a public checkpoint was trained on them.

    Attributes:
        tokenizer: of the checkpoint.
        preprocessor: of its images.
        image_text: how it writes an image.
        lengths: buckets of prompts.
        patch_counts: buckets of the patches of a prompt.
    """

    tokenizer: CheckpointTokenizer
    preprocessor: ImagePreprocessor
    image_text: ImageText
    lengths: Sequence[int]
    patch_counts: Sequence[int]

    def view(self, *images: Pixels) -> TiledView:
        """As `Processor.view`."""
        layouts = tuple(self.preprocessor.layout(*image.shape[:2]) for image in images)
        return TiledView(self.preprocessor(images), layouts)

    def count_images(self, view: TiledView) -> int:
        """As `Processor.count_images`."""
        return len(view.layouts)

    def inputs(self, texts: Sequence[str], views: Sequence[TiledView]) -> tuple[ImagePatches, PromptTokens]:
        """As `Processor.inputs`."""
        rows = [self._encode(text, view.layouts) for text, view in zip(texts, views, strict=True)]
        merge = self.preprocessor.merge
        patches = stack_patches([view.patches for view in views], counts=self.patch_counts, merge=merge)
        return patches, pad_prompts(self.tokenizer, rows, lengths=self.lengths)

    def prompts(
        self, texts: Sequence[str], *, lengths: Sequence[int] | None = None, answered: bool = True
    ) -> PromptTokens:
        """As `Processor.prompts`."""
        rows = [self._encode(text, (), answered=answered) for text in texts]
        return pad_prompts(self.tokenizer, rows, lengths=lengths or self.lengths)

    def _encode(self, text: str, layouts: Sequence[Layout], *, answered: bool = True) -> list[int]:
        # Errors name a prompt by its text.
        options = {"image_text": self.image_text, "layouts": layouts, "sample": text, "answered": answered}
        return encode_chat(self.tokenizer, [user_message(text)], **options)

    def fits(self, text: str, *sizes: tuple[int, int]) -> bool:
        """As `Processor.fits`."""
        try:
            layouts = [self.preprocessor.layout(*size) for size in sizes]
        except UnusableImageError:
            return False
        patches = sum(sum(layout.tokens) for layout in layouts) * self.preprocessor.merge**2
        if patches > max(self.patch_counts):
            return False
        return len(self._encode(text, layouts)) <= max(self.lengths)

    def hide(self, view: TiledView, tokens: Int[np.ndarray, " hidden"]) -> TiledView:
        """As `Processor.hide`."""
        token_of = np.arange(len(view.patches.image)) // self.preprocessor.merge**2
        pixels = np.where(np.isin(token_of, tokens)[:, None], np.uint8(GREY), view.patches.pixels)
        return view._replace(patches=view.patches._replace(pixels=pixels))

    def heats(
        self, scores: Float[np.ndarray, " I"], *sizes: tuple[int, int]
    ) -> list[Float[np.ndarray, "rows columns"]]:
        """As `Processor.heats`; of an image that is cut into tiles, those of the tile that shows it whole."""
        ends = np.cumsum([sum(self.preprocessor.layout(*size).tokens) for size in sizes])
        return [self._heat(*image) for image in zip(np.split(scores, ends[:-1]), sizes, strict=True)]

    def _heat(
        self, scores: Float[np.ndarray, " I"], size: tuple[int, int]
    ) -> Float[np.ndarray, "rows columns"]:
        tiling, side = self.preprocessor.tiling, self.preprocessor.patch_size * self.preprocessor.merge
        tall, wide = (pixels // side for pixels in tiling.plan(*size).sizes[tiling.whole])
        tiles = np.split(scores, np.cumsum(self.preprocessor.layout(*size).tokens)[:-1])
        return np.reshape(tiles[tiling.whole], (tall, wide))
