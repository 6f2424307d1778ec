"""From decoded images to the patches that a checkpoint's vision tower reads."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.images import ResizeMethod
from mmrpt_jax.data.preprocessing.patches import ImagePatches, cut_patches, join_patches, no_patches
from mmrpt_jax.data.preprocessing.tiles import Tiling
from mmrpt_jax.models.config import VisionConfig


class Layout(NamedTuple):
    """How one image appears in a prompt.

    Attributes:
        rows: rows of crops, 0 if the image is shown whole only.
        columns: columns of crops.
        tokens: visual tokens of each tile, in the order in which the tower reads them.
    """

    rows: int
    columns: int
    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ImagePreprocessor:
    """The numbers of a checkpoint's image preprocessing.

    Attributes:
        tiling: into which tiles of which sizes an image is cut.
        patch_size: side of a patch in pixels.
        merge: m; m x m patches become one visual token.
        resample: filter of every resize.
        mean: of each channel on the scale 0..1; the device computes ``(byte / 255 - mean) / std``.
        std: of each channel on the same scale.
    """

    tiling: Tiling
    patch_size: int
    merge: int
    resample: ResizeMethod
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def layout(self, height: int, width: int) -> Layout:
        """How an image of this size will appear; looks at no pixels.

        Raises:
            ValueError: an image of this size cannot be used.
        """
        plan, side = self.tiling.plan(height, width), self.patch_size * self.merge
        tokens = tuple((tall // side) * (wide // side) for tall, wide in plan.sizes)
        return Layout(plan.rows, plan.columns, tokens)

    def __call__(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> ImagePatches:
        """The patches of a prompt's images.

        Args:
            images: RGB, each of its own size, as `decode_image` returns them.

        Raises:
            ValueError: an image of this size cannot be used.
        """
        tiles = [tile for image in images for tile in self.tiling.cut(image, self.resample)]
        if not tiles:
            return no_patches(self.patch_size)
        cut = [
            cut_patches(tile, patch_size=self.patch_size, merge=self.merge, index=index)
            for index, tile in enumerate(tiles)
        ]
        return join_patches(cut)

    def complete(self, vision: VisionConfig) -> VisionConfig:
        """The tower that reads these images: it normalises them by this mean and deviation.

        Raises:
            ValueError: the tower was made for other patches, or has no positions for some of these.
        """
        made_for, given = (vision.patch_size, vision.connector.merge), (self.patch_size, self.merge)
        if made_for != given:
            raise ValueError(
                "the checkpoint's model wants patches of {} pixels, {} a side in a visual token, its image "
                "processor gives {} and {}; they do not belong together".format(*made_for, *given)
            )
        tile = tuple(side // self.patch_size for side in self.tiling.plan(1, 1).sizes[0])
        if vision.positions == "exact" and tile != vision.grid:
            raise ValueError(
                "the checkpoint's model has learned positions of {} x {} patches, its image processor gives {} x {}; "
                "they do not belong together".format(*vision.grid, *tile)
            )
        return dataclasses.replace(vision, pixel_mean=self.mean, pixel_std=self.std)
