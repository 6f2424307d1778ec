import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.attention import FAR
from mmrpt_jax.models.patches import (
    ImagePatches,
    cut_images,
    image_sizes,
    learned_positions,
    normalise,
    patchify,
    vision_places,
)


def joined(*sizes, padding=0):
    """Patches of images of those (rows, columns), in one row; without pixels."""
    grids = [np.indices(size).reshape(2, -1) for size in sizes]
    rows, columns = np.concatenate(grids, axis=1)
    image = np.repeat(np.arange(len(sizes)), [rows * columns for rows, columns in sizes])
    row = [
        np.pad(x, (0, padding), constant_values=fill) for x, fill in ((rows, 0), (columns, 0), (image, -1))
    ]
    return ImagePatches(np.zeros((1, len(row[0]), 12), np.uint8), *(x[None] for x in row))


def test_patches_go_row_by_row():
    image = np.arange(4 * 6 * 2).reshape(1, 4, 6, 2)
    patches = patchify(jnp.asarray(image), 2)
    assert patches.shape == (1, 6, 8)
    for index in range(6):
        row, column = divmod(index, 3)
        window = image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(patches[0, index], window.reshape(-1))


def test_patches_of_a_visual_token_follow_each_other():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    patches = cut_images(images, 2, merge=2)
    # Blocks row by row, and in each block its patches row by row.
    corners = [(r, c) for r in (0, 2) for c in (0, 2, 4)]
    places = [(r + dr, c + dc) for r, c in corners for dr in (0, 1) for dc in (0, 1)]
    for b, (n, (row, column)) in ((b, place) for b in range(2) for place in enumerate(places)):
        assert (patches.rows[b, n], patches.columns[b, n], patches.image[b, n]) == (row, column, 0)
        window = images[b, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(patches.pixels[b, n], window.reshape(-1))


def test_pixels_are_normalised_by_channel():
    pixels = np.random.default_rng(4).integers(0, 256, (1, 3, 8 * 8 * 3), np.uint8)
    expected = (pixels.reshape(1, 3, 64, 3) / 255.0 - np.array([0.1, 0.2, 0.3])) / np.array([0.4, 0.5, 0.6])
    found = normalise(pixels, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    np.testing.assert_allclose(found, expected.reshape(1, 3, -1), rtol=1e-5, atol=1e-6)


def test_sizes_of_images():
    patches = joined((2, 3), (4, 1), padding=2)
    heights, widths = image_sizes(*(jnp.asarray(x) for x in patches[1:]))
    np.testing.assert_array_equal(heights[0], [2] * 6 + [4] * 4 + [1] * 2)
    np.testing.assert_array_equal(widths[0], [3] * 6 + [1] * 4 + [1] * 2)


def test_places_are_those_of_windows_and_images():
    patches = joined((3, 4), (2, 2), padding=1)
    places = np.asarray(vision_places(patches, 2))[0]
    same = places[:, None] == places
    # Windows of the first image: columns 0-1 and 2-3, rows 0-1 and 2.
    window = np.array([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5])
    np.testing.assert_array_equal(same, window[:, None] == window)
    image, near = patches.image[0], np.abs(places[:, None] - places) < FAR
    np.testing.assert_array_equal(near, image[:, None] == image)


TABLE = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)


def test_exact_positions():
    found = learned_positions(TABLE, (3, 4), joined((2, 3)), "exact")
    np.testing.assert_array_equal(found[0], TABLE[[0, 1, 2, 4, 5, 6]])


def test_nearest_positions():
    """An image of the table's own size has them all; in a smaller one, patch i of n has entry floor(i · side / n)."""
    whole = learned_positions(TABLE, (3, 4), joined((3, 4)), "nearest")
    np.testing.assert_array_equal(whole[0], TABLE)
    found = learned_positions(TABLE, (3, 4), joined((2, 3), (1, 1), padding=1), "nearest")
    rows, columns = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(
        found[0, :6], TABLE[[4 * r + c for r, c in zip(rows, columns, strict=True)]]
    )
    np.testing.assert_array_equal(found[0, 6], TABLE[0])


@pytest.mark.parametrize("size", [(3, 4), (5, 7), (2, 1)])
def test_bilinear_positions(size):
    """Corners on corners, as an image whose pixels are corners is resized."""
    grid = TABLE.reshape(3, 4, 5)
    expected = np.zeros((*size, 5))
    for row, column in np.ndindex(*size):
        y, x = (
            i * (side - 1) / max(n - 1, 1) for i, side, n in zip((row, column), (3, 4), size, strict=True)
        )
        for dy, dx in np.ndindex(2, 2):
            i, j = min(int(y) + dy, 2), min(int(x) + dx, 3)
            weight = (1 - abs(y - int(y) - dy)) * (1 - abs(x - int(x) - dx))
            expected[row, column] += weight * grid[i, j]
    found = jax.jit(learned_positions, static_argnums=(1, 3))(TABLE, (3, 4), joined((1, 2), size), "bilinear")
    np.testing.assert_allclose(found[0, 2:], expected.reshape(-1, 5), atol=1e-5)
