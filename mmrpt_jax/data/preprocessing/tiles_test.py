import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.data.preprocessing.sizes import FixedSize, PixelBudget
from mmrpt_jax.data.preprocessing.tiles import PanAndScan, SplitTiles, WholeImage

SPLIT = SplitTiles(longest_edge=8, tile=4)
SCAN = PanAndScan(FixedSize(6, 6), min_crop=4, max_crops=3, min_ratio=1.5)
TILINGS = (
    WholeImage(FixedSize(6, 4)),
    WholeImage(PixelBudget(4, 16, 256)),
    SPLIT,
    SplitTiles(longest_edge=8, tile=4, split=False),
    SCAN,
)


@pytest.mark.parametrize("tiling", TILINGS)
@given(st.integers(1, 40), st.integers(1, 40))
def test_what_is_cut_is_what_was_planned(tiling, height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert tuple(tile.shape[:2] for tile in tiling.cut(image, "bicubic")) == tiling.plan(height, width).sizes


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((8, 8), (2, 2)),
        ((3, 8), (1, 2)),  # the other side becomes 3, made even 4: one row of two
        ((16, 5), (2, 1)),
        ((5, 8), (2, 2)),
        ((1, 4000), (1, 2)),
    ],
)
def test_a_copy_is_covered_by_tiles(size, grid):
    rows, columns, sizes = SPLIT.plan(*size)
    assert (rows, columns) == grid
    assert sizes == ((4, 4),) * (rows * columns + 1)


def test_crops_are_the_copys_and_the_whole_comes_last():
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    *crops, whole = SPLIT.cut(image, "nearest")  # nothing to resize but the whole
    for place, crop in enumerate(crops):
        top, left = 4 * (place // 2), 4 * (place % 2)
        np.testing.assert_array_equal(crop, image[top : top + 4, left : left + 4])
    np.testing.assert_array_equal(whole, image[1::2, 1::2])


def test_an_image_that_fills_one_tile_is_not_split():
    assert SplitTiles(longest_edge=4, tile=4).plan(9, 9) == (0, 0, ((4, 4),))
    assert SplitTiles(longest_edge=8, tile=4, split=False).plan(9, 9) == (0, 0, ((4, 4),))


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((8, 8), (0, 0)),
        ((8, 11), (0, 0)),  # below the ratio
        ((8, 12), (1, 2)),  # 1.5 is at the ratio and rounds up
        ((30, 10), (3, 1)),
        ((90, 10), (3, 1)),  # at most three
        ((6, 3), (0, 0)),  # crops would be 3 pixels wide
    ],
)
def test_elongated_images_are_scanned(size, grid):
    rows, columns, sizes = SCAN.plan(*size)
    assert (rows, columns) == grid
    assert len(sizes) == rows * columns + 1


def test_scanned_crops_lie_side_by_side_behind_the_whole():
    image = np.random.default_rng(0).integers(0, 256, (6, 12, 3), np.uint8)
    whole, left, right = SCAN.cut(image, "nearest")
    np.testing.assert_array_equal(whole, image[:, 1::2])
    np.testing.assert_array_equal(left, image[:, :6])
    np.testing.assert_array_equal(right, image[:, 6:])
