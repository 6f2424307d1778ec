"""The patches of a prompt's images, in the order in which a vision tower merges them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.prompts import bucket
from mmrpt_jax.models.patches import PADDING, ImagePatches


def cut_patches(
    tile: UInt8[np.ndarray, "h w 3"], *, patch_size: int, merge: int = 1, index: int = 0
) -> ImagePatches:
    """Cuts one tile, number `index` of its prompt, into patches in block order.

    Pixels on the right and at the bottom that fill no patch are left out, as a convolution without padding does:
    SigLIP's 384 x 384 pixels have 27 x 27 patches of 14 x 14.

    Raises:
        ValueError: the patches do not divide into blocks.
    """
    height, width, channels = tile.shape
    rows, columns = height // patch_size, width // patch_size
    if rows % merge or columns % merge:
        raise ValueError(
            f"a tile of {height} x {width} pixels has no whole number of blocks of {merge} x {merge} patches of "
            f"{patch_size} x {patch_size} pixels; resize it first"
        )
    tile = tile[: rows * patch_size, : columns * patch_size]

    def in_blocks(grid: np.ndarray) -> np.ndarray:
        """`[rows, columns, ...]` to `[N, ...]`."""
        blocks = grid.reshape(rows // merge, merge, columns // merge, merge, *grid.shape[2:])
        return blocks.swapaxes(1, 2).reshape(rows * columns, *grid.shape[2:])

    grid = tile.reshape(rows, patch_size, columns, patch_size, channels).swapaxes(1, 2)
    pixels = in_blocks(grid.reshape(rows, columns, patch_size * patch_size * channels))
    row, column = np.indices((rows, columns), np.int32)
    return ImagePatches(pixels, in_blocks(row), in_blocks(column), np.full(rows * columns, index, np.int32))


def join_patches(tiles: Sequence[ImagePatches]) -> ImagePatches:
    """The patches of all tiles of a prompt, one tile after the other; there must be one at least."""
    return ImagePatches(*map(np.concatenate, zip(*tiles, strict=True)))


def no_patches(patch_size: int) -> ImagePatches:
    """What a prompt without images holds."""
    nothing = np.zeros(0, np.int32)
    return ImagePatches(np.zeros((0, patch_size * patch_size * 3), np.uint8), nothing, nothing, nothing)


def stack_patches(prompts: Sequence[ImagePatches], *, counts: Sequence[int], merge: int) -> ImagePatches:
    """Pads the patches of each prompt to one of `counts` and stacks the prompts along a new first axis.

    Args:
        prompts: the patches of each prompt.
        counts: buckets of patch counts; every one a whole number of blocks.
        merge: m; padding must not share a block with pixels.

    Raises:
        TooLongError: a prompt has more patches than the largest bucket.
        ValueError: a bucket is no whole number of blocks.
    """
    if any(count % merge**2 for count in counts):
        raise ValueError(
            f"patch counts {tuple(counts)} must be multiples of {merge**2}, the patches of one visual token"
        )
    count = bucket(max(len(patches.image) for patches in prompts), counts, "a prompt's images", "patches")

    def stack(arrays: Sequence[np.ndarray], fill: int) -> np.ndarray:
        stacked = np.full((len(arrays), count, *arrays[0].shape[1:]), fill, arrays[0].dtype)
        for row, array in zip(stacked, arrays, strict=True):
            row[: len(array)] = array
        return stacked

    return ImagePatches(*map(stack, zip(*prompts, strict=True), PADDING))
