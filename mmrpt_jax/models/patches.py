"""Patches of images: how images are cut, and where in their image and in a grid of learned positions patches stand.

Patches stand in block order: the m x m patches that become one visual token follow each other, row by row; so do the
blocks of an image, and so do images.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mmrpt_jax.models.attention import FAR

# Windows per row of windows; more than an image has.
_WINDOWS = 1 << 10


class ImagePatches(NamedTuple):
    """The patches of all images of a prompt, padded on the right; a tile of an image is an image of its own here.

    The order is by blocks: the m x m patches that become one visual token are neighbours, row by row inside the block,
    blocks row by row inside the image. So merging is a reshape for every tower: Qwen's merger and Idefics3's pixel
    shuffle concatenate the features of a block in this very order (Idefics3's channels are block row, block column,
    feature), Gemma's pooling averages them.

    Attributes:
        pixels: bytes; row, column, channel inside a patch. They are normalised on the device.
        rows: row of the patch in its image, in patches.
        columns: likewise.
        image: number of its image in the prompt, from 0; -1 for padding.
    """

    pixels: UInt8[Array, "*B N pixels"]
    rows: Int[Array, "*B N"]
    columns: Int[Array, "*B N"]
    image: Int[Array, "*B N"]


# What rows are filled up with.
PADDING = ImagePatches(pixels=0, rows=0, columns=0, image=-1)


def patchify(images: Array, patch_size: int, merge: int = 1) -> Array:
    """Cuts images [B h w C] into square patches [B N pixels], in block order."""
    batch, height, width, channels = images.shape
    size = merge * patch_size
    blocks = images.reshape(
        batch, height // size, merge, patch_size, width // size, merge, patch_size, channels
    )
    patches = blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return patches.reshape(batch, -1, patch_size * patch_size * channels)


def normalise(
    pixels: UInt8[Array, "*E pixels"], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Array, "*E pixels"]:
    """(byte / 255 − mean) / std, by channel: bytes travel to the device and become numbers around 0 there."""
    channels = pixels.astype(jnp.float32).reshape(*pixels.shape[:-1], -1, 3)
    mean, std = jnp.array(mean), jnp.array(std)
    return (channels / (255.0 * std) - mean / std).reshape(pixels.shape)


def cut_images(images: UInt8[Array, "B h w 3"], patch_size: int, merge: int = 1) -> ImagePatches:
    """The patches of images of one size, one image per row."""
    rows, columns = images.shape[1] // patch_size, images.shape[2] // patch_size
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    places = patchify(grid[None], 1, merge)[0]
    count = (images.shape[0], rows * columns)
    row, column = (jnp.broadcast_to(places[:, axis], count) for axis in range(2))
    return ImagePatches(patchify(images, patch_size, merge), row, column, jnp.zeros(count, jnp.int32))


def image_sizes(
    rows: Int[Array, "B N"], columns: Int[Array, "B N"], image: Int[Array, "B N"]
) -> tuple[Int[Array, "B N"], Int[Array, "B N"]]:
    """Rows and columns of the image that each patch (or visual token) belongs to; at least 1."""
    segments = rows.shape[1] + 1

    @jax.vmap
    def size(place, image):
        segment = jnp.where(image < 0, segments - 1, image)
        return jnp.maximum(jax.ops.segment_max(place, segment, segments), 0)[segment] + 1

    return size(rows, image), size(columns, image)


def vision_places(patches: ImagePatches, window: int) -> Int[Array, "B N"]:
    """Places of patches (see `attend`): equal within a window of `window` x `window`, `FAR` apart between images."""
    places = patches.image * (2 * FAR)
    return places + patches.rows // window * _WINDOWS + patches.columns // window if window else places


def learned_positions(
    table: Float[Array, "places D"], grid: tuple[int, int], patches: ImagePatches, kind: str
) -> Float[Array, "B N D"]:
    """What a table of learned positions holds for each patch.

    Args:
        table: one position for each place of `grid`, row by row.
        grid: rows and columns of the table.
        patches: where they stand.
        kind: "exact", "nearest" or "bilinear", as in `VisionConfig`.
    """
    # Parameters may be arrays of NumPy, which do not take traced indices.
    table, rows, columns = jnp.asarray(table), patches.rows, patches.columns
    if kind == "exact":
        return table[jnp.clip(rows * grid[1] + columns, 0, len(table) - 1)]
    heights, widths = image_sizes(rows, columns, patches.image)
    if kind == "nearest":
        return table[_bucket(rows, heights, grid[0]) * grid[1] + _bucket(columns, widths, grid[1])]
    above, below, down = _neighbours(rows, heights, grid[0])
    left, right, across = _neighbours(columns, widths, grid[1])
    upper = table[above * grid[1] + left] * (1 - across) + table[above * grid[1] + right] * across
    lower = table[below * grid[1] + left] * (1 - across) + table[below * grid[1] + right] * across
    return upper * (1 - down) + lower * down


def _bucket(index: Int[Array, "B N"], size: Int[Array, "B N"], side: int) -> Int[Array, "B N"]:
    """Which of `side` equal parts of the image begins at or before index / size.

    In float32, boundaries included: where those round, towers learned with the rounded ones (Idefics 3).
    """
    boundaries = jnp.asarray(np.arange(1, side) / side, jnp.float32)
    fraction = jnp.minimum(index.astype(jnp.float32) * (1.0 / size.astype(jnp.float32)), 1.0 - 1e-6)
    return jnp.searchsorted(boundaries, fraction, side="right").astype(jnp.int32)


def _neighbours(index: Int[Array, "B N"], size: Int[Array, "B N"], side: int):
    """The two entries around index · (side − 1) / (size − 1), and the weight of the second one: [B N 1].

    Corners of the image fall on corners of the table.
    """
    place = index.astype(jnp.float32) * (side - 1) / jnp.maximum(size - 1, 1)
    first = jnp.floor(place)
    before = jnp.clip(first.astype(jnp.int32), 0, side - 1)
    return before, jnp.minimum(before + 1, side - 1), (place - first)[..., None]
