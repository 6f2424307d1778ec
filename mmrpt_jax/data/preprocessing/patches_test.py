import numpy as np
import pytest

from mmrpt_jax.data.preprocessing.patches import (
    ImagePatches,
    cut_patches,
    join_patches,
    no_patches,
    stack_patches,
)
from mmrpt_jax.data.prompts import TooLongError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_blocks_are_neighbours_and_rows_and_columns_say_where_a_patch_lies():
    patches = cut_patches(noise(4, 8), patch_size=1, merge=2, index=3)
    # Two rows of four blocks; inside a block upper left, upper right, lower left, lower right.
    assert patches.rows.tolist() == [0, 0, 1, 1] * 4 + [2, 2, 3, 3] * 4
    assert patches.columns.tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7] * 2
    assert patches.image.tolist() == [3] * 32
    assert {field.dtype.name for field in patches[1:]} == {"int32"}


@pytest.mark.parametrize("merge", [1, 2, 4])
def test_pixels_are_those_at_the_patch(merge):
    tile = noise(3 * 4 * 2, 3 * 4 * 3)
    patches = cut_patches(tile, patch_size=3, merge=merge)
    for pixels, row, column, _ in zip(*patches, strict=True):
        expected = tile[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        np.testing.assert_array_equal(pixels.reshape(3, 3, 3), expected)


def test_merging_is_a_reshape_to_idefics3s_pixel_shuffle():
    scale, features = 2, noise(4, 4)
    by_place = features.reshape(2, scale, 2, scale, 3)
    # Channels of a shuffled position: row in the block, column in the block, feature.
    shuffled = [by_place[i, :, j].reshape(-1) for i in range(2) for j in range(2)]
    merged = cut_patches(features, patch_size=1, merge=scale).pixels.reshape(4, scale * scale * 3)
    np.testing.assert_array_equal(merged, shuffled)


def test_pixels_that_fill_no_patch_are_left_out():
    tile = noise(7, 8)
    whole, cut = (cut_patches(x, patch_size=3, merge=2) for x in (tile, tile[:6, :6]))
    for found, expected in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_tiles_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match="a tile of 4 x 6 pixels has no whole number of blocks of 2 x 2 patches"
    ):
        cut_patches(noise(4, 6), patch_size=2, merge=2)


def test_prompts_are_padded_to_one_bucket():
    first = join_patches([cut_patches(noise(2, 4), patch_size=1, merge=2, index=i) for i in range(2)])
    second = cut_patches(noise(2, 2), patch_size=1, merge=2)
    stacked = stack_patches([first, no_patches(1), second], counts=(4, 64, 20), merge=2)
    assert isinstance(stacked, ImagePatches)
    assert stacked.pixels.shape == (3, 20, 3)
    assert stacked.pixels.dtype == np.uint8
    np.testing.assert_array_equal(stacked.image[0], [0] * 8 + [1] * 8 + [-1] * 4)
    np.testing.assert_array_equal((stacked.image >= 0).sum(1), [16, 0, 4])
    for row, patches in zip([0, 2], [first, second], strict=True):
        for padded, field in zip(stacked, patches, strict=True):
            np.testing.assert_array_equal(padded[row, : len(field)], field)


def test_too_many_patches_and_broken_blocks_are_refused():
    patches = cut_patches(noise(4, 4), patch_size=1, merge=2)
    with pytest.raises(
        TooLongError, match="a prompt's images takes 16 patches, more than the largest length 8"
    ):
        stack_patches([patches], counts=(4, 8), merge=2)
    with pytest.raises(ValueError, match=r"patch counts \(16, 18\) must be multiples of 4"):
        stack_patches([patches], counts=(16, 18), merge=2)
