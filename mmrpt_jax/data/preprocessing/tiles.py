"""Into how many pictures an image is cut before a vision tower reads it: one, or crops beside the whole."""

import dataclasses
import math
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.images import ResizeMethod, resize_image
from mmrpt_jax.data.preprocessing.sizes import FixedSize, ResizeRule

Picture = UInt8[np.ndarray, "h w 3"]
# Idefics3 never enlarges an image beyond this before splitting it.
_LARGEST_EDGE = 4096


class TilePlan(NamedTuple):
    """What becomes of an image of a given size.

    Attributes:
        rows: rows of crops, 0 if the image is shown whole only.
        columns: columns of crops.
        sizes: (height, width) of each tile, in the order in which the tower reads them.
    """

    rows: int
    columns: int
    sizes: tuple[tuple[int, int], ...]


class Tiling(Protocol):
    """How an image is cut into tiles.

    Attributes:
        whole: number of the tile that shows the whole image, as an index.
    """

    whole: ClassVar[int]

    def plan(self, height: int, width: int) -> TilePlan:
        """What becomes of an image of this size; looks at no pixels."""

    def cut(self, image: Picture, resample: ResizeMethod) -> list[Picture]:
        """The tiles of the plan."""


@dataclasses.dataclass(frozen=True)
class WholeImage:
    """One tile: the image itself, resized."""

    whole: ClassVar[int] = 0
    resize: ResizeRule

    def plan(self, height: int, width: int) -> TilePlan:
        """One tile of the rule's size."""
        return TilePlan(0, 0, (self.resize.size(height, width),))

    def cut(self, image: Picture, resample: ResizeMethod) -> list[Picture]:
        """The image in the rule's size."""
        return [resize_image(image, *self.resize.size(*image.shape[:2]), resample)]


@dataclasses.dataclass(frozen=True)
class SplitTiles:
    """Square tiles of a large copy of the image, row by row, and behind them the whole image as one tile (Idefics3).

    Attributes:
        longest_edge: the longer side of the copy, before it is stretched to whole tiles.
        tile: side of a tile.
        split: whether there are crops; otherwise the whole image is the only tile.
    """

    whole: ClassVar[int] = -1
    longest_edge: int
    tile: int
    split: bool = True

    def plan(self, height: int, width: int) -> TilePlan:
        """All tiles are of one size."""
        rows, columns = self._grid(*self._enlarged(height, width))
        return TilePlan(rows, columns, ((self.tile, self.tile),) * (rows * columns + 1))

    def cut(self, image: Picture, resample: ResizeMethod) -> list[Picture]:
        """Resizes step by step, as the checkpoints were trained: each step rounds to bytes."""
        image = resize_image(image, *self._enlarged(*image.shape[:2]), resample)
        rows, columns = self._grid(*image.shape[:2])
        if not rows:
            return [resize_image(image, self.tile, self.tile, resample)]
        image = resize_image(image, rows * self.tile, columns * self.tile, resample)
        grid = image.reshape(rows, self.tile, columns, self.tile, 3).swapaxes(1, 2)
        crops = grid.reshape(rows * columns, self.tile, self.tile, 3)
        return [*crops, resize_image(image, self.tile, self.tile, resample)]

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        """The longer side becomes `longest_edge`, the other keeps the ratio, made even; then both are limited."""
        height, width = _with_longer_side(height, width, self.longest_edge)
        if width >= height:
            height += height % 2
        else:
            width += width % 2
        height, width = max(height, 1), max(width, 1)
        if max(height, width) > _LARGEST_EDGE:
            height, width = _with_longer_side(height, width, _LARGEST_EDGE)
        return max(height, 1), max(width, 1)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles that cover the copy; (0, 0) if there is nothing to split."""
        longer = math.ceil(max(height, width) / self.tile) * self.tile
        height, width = _with_longer_side(height, width, longer)
        rows, columns = math.ceil(height / self.tile), math.ceil(width / self.tile)
        return (rows, columns) if self.split and rows * columns > 1 else (0, 0)


@dataclasses.dataclass(frozen=True)
class PanAndScan:
    """The whole image and, if it is elongated, crops along its longer side; all of one size (Gemma 3).

    Attributes:
        resize: the size of every tile.
        min_crop: no crop has a side below this, in pixels of the image.
        max_crops: the most crops.
        min_ratio: an image of a smaller aspect ratio is shown whole only.
    """

    whole: ClassVar[int] = 0
    resize: FixedSize
    min_crop: int
    max_crops: int
    min_ratio: float

    def plan(self, height: int, width: int) -> TilePlan:
        """Crops along the longer side."""
        crops = self._crops(max(height, width), min(height, width))
        rows, columns = ((1, crops) if width >= height else (crops, 1)) if crops else (0, 0)
        return TilePlan(rows, columns, (self.resize.size(height, width),) * (crops + 1))

    def cut(self, image: Picture, resample: ResizeMethod) -> list[Picture]:
        """The whole image comes first."""
        height, width = image.shape[:2]
        rows, columns, sizes = self.plan(height, width)
        pictures = [image]
        if rows:
            step, axis = math.ceil(max(height, width) / (rows * columns)), int(width >= height)
            pictures += np.split(image, range(step, step * rows * columns, step), axis)
        return [
            resize_image(np.ascontiguousarray(picture), *size, resample)
            for picture, size in zip(pictures, sizes, strict=True)
        ]

    def _crops(self, longer: int, shorter: int) -> int:
        if longer / shorter < self.min_ratio:
            return 0
        wanted = min(math.floor(longer / shorter + 0.5), longer // self.min_crop)
        crops = min(max(2, wanted), self.max_crops)
        return crops if min(math.ceil(longer / crops), shorter) >= self.min_crop else 0


def _with_longer_side(height: int, width: int, longer: int) -> tuple[int, int]:
    """Scales the longer side to `longer`; the other side is rounded down, as division by the ratio has it."""
    ratio = width / height
    return (int(longer / ratio), longer) if width >= height else (longer, int(longer * ratio))
