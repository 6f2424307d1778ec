import numpy as np
import pytest

from mmrpt_jax.data.nlvr import permute_boxes


def picture(order):
    """Boxes 2 pixels wide with the values of `order`, one-pixel bars of 9 between them, 8 pixels in all."""
    row = [order[0]] * 2 + [9] + [order[1]] * 2 + [9] + [order[2]] * 2
    return np.broadcast_to(np.array(row, np.uint8)[None, :, None], (3, 8, 3))


def test_boxes_move_and_bars_stay():
    seen = set()
    for seed in range(60):
        permuted = permute_boxes(picture((1, 2, 3)), np.random.default_rng(seed))
        order = tuple(int(permuted[0, column, 0]) for column in (0, 3, 6))
        np.testing.assert_array_equal(permuted, picture(order))
        seen.add(order)
    assert len(seen) == 6


def test_width_that_cuts_boxes_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        permute_boxes(np.zeros((2, 10, 3), np.uint8), np.random.default_rng(0))
