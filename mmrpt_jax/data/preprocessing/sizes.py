"""Resize rules: the size of an image in, the size that a checkpoint's tower wants out; (height, width) in pixels."""

import dataclasses
import math
from typing import Protocol

MAX_ASPECT_RATIO = 200


class UnusableImageError(ValueError):
    """An image of a size that the tower cannot take."""


class ResizeRule(Protocol):
    """From the size of an image to the size that it is resized to."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize."""


@dataclasses.dataclass(frozen=True)
class FixedSize:
    """Every image becomes `height` x `width`; the aspect ratio is not kept (SigLIP, Gemma 3)."""

    height: int
    width: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The fixed size."""
        return self.height, self.width


@dataclasses.dataclass(frozen=True)
class PixelBudget:
    """Sides become the nearest multiples of `multiple`, and the area is scaled into the budget if it lies outside.

    Qwen2-VL (Wang et al., 2024), "smart resize". Multiples are rounded down to stay below the most pixels and up to
    reach the fewest; halves round to even.

    Attributes:
        multiple: patch size times merge.
        min_pixels: the smallest area.
        max_pixels: the largest area; an image narrower than one multiple may exceed it.
    """

    multiple: int
    min_pixels: int
    max_pixels: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Scales both sides alike.

        Raises:
            UnusableImageError: one side is more than 200 times the other.
        """
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise UnusableImageError(
                f"an image of {height} x {width} pixels is too narrow: one side may be at most {MAX_ASPECT_RATIO} "
                "times the other; leave it out"
            )
        rounded = tuple(round(side / self.multiple) * self.multiple for side in (height, width))
        if math.prod(rounded) > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            return self._fit(math.floor, height / shrink), self._fit(math.floor, width / shrink)
        if math.prod(rounded) < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            return self._fit(math.ceil, height * grow), self._fit(math.ceil, width * grow)
        return rounded

    def _fit(self, rounding, side: float) -> int:
        return max(1, rounding(side / self.multiple)) * self.multiple


@dataclasses.dataclass(frozen=True)
class BoundedEdges:
    """Scales an image down to `max_edge`, or up until its short side has `min_edge`; sides become multiples (BAGEL).

    Attributes:
        multiple: what both sides are multiples of.
        min_edge: the short side's lower bound; gives way to `max_edge`.
        max_edge: the long side's upper bound.
        max_pixels: the largest area.
    """

    multiple: int
    min_edge: int
    max_edge: int
    max_pixels: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Applies the bounds one after the other; each works on the size that the one before left behind."""
        scale = max(min(self.max_edge / max(height, width), 1.0), self.min_edge / min(height, width))
        height, width = self._scaled(height, width, scale)
        if height * width > self.max_pixels:
            height, width = self._scaled(height, width, self.max_pixels / (height * width))
        if max(height, width) > self.max_edge:
            height, width = self._scaled(height, width, self.max_edge / max(height, width))
        return height, width

    def _scaled(self, height: int, width: int, scale: float) -> tuple[int, int]:
        height, width = (
            max(1, round(round(side * scale) / self.multiple)) * self.multiple for side in (height, width)
        )
        return height, width
