import numpy as np
import pytest

from mmrpt_jax.scenes.regions import grown, interior, label_components


def test_components_join_at_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
    labels, count = label_components(mask)
    assert count == 4
    np.testing.assert_array_equal(labels, [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 4]])


def test_interior_is_what_all_four_neighbours_share_or_everything():
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(np.argwhere(interior(mask)), [[1, 1]])
    thin = np.array([[0, 1, 1, 1]], bool)
    np.testing.assert_array_equal(interior(thin), thin)


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_grown_by_brute_force(pixels):
    mask = np.random.default_rng(0).random((12, 9)) < 0.05
    near = [
        [
            mask[max(y - pixels, 0) : y + pixels + 1, max(x - pixels, 0) : x + pixels + 1].any()
            for x in range(9)
        ]
        for y in range(12)
    ]
    np.testing.assert_array_equal(grown(mask, pixels), near)
