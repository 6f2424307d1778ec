import numpy as np
import pytest

from mmrpt_jax.scenes.fit import RADIUS_RANGE, best_fit
from mmrpt_jax.scenes.world import SHAPES

PIXELS = 40


def painted(shape, x, y, radius, pixels=PIXELS):
    """How much of every pixel a shape covers, from 10 × 10 points each."""
    points = (np.arange(10 * pixels) + 0.5) / 10
    right, down = np.meshgrid((points - x) / radius, (points - y) / radius)
    covered = {
        "circle": np.hypot(right, down) < 1,
        "square": (abs(right) < 0.85) & (abs(down) < 0.85),
        "triangle": (down > 2 * abs(right) - 1) & (down < 0.85),
        "cross": ((abs(right) < 0.35) & (abs(down) < 1)) | ((abs(down) < 0.35) & (abs(right) < 1)),
    }[shape]
    return covered.reshape(pixels, 10, pixels, 10).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("x", "y", "radius"), [(20, 20, 6), (14.3, 21.8, 7.2), (25.5, 12.1, 10.3)])
def test_finds_shapes_anywhere_and_of_any_size(shape, x, y, radius):
    fit = best_fit(painted(shape, x, y, radius), min_opacity=0.6)
    assert fit.shape == shape
    assert (fit.x, fit.y, fit.radius) == pytest.approx((x, y, radius), abs=0.1)
    assert fit.overlap > 0.93


@pytest.mark.parametrize("shape", SHAPES)
def test_finds_faded_and_blurred_shapes(shape):
    alpha = 0.7 * painted(shape, 20.4, 19.7, 9)
    ticks = np.arange(PIXELS)
    kernel = np.exp(-0.5 * ((ticks[:, None] - ticks) / 1.3) ** 2)
    kernel /= kernel.sum(axis=0)
    fit = best_fit(kernel @ alpha @ kernel, min_opacity=0.6)
    assert fit.shape == shape
    assert (fit.x, fit.y, fit.radius) == pytest.approx((20.4, 19.7, 9), abs=0.5)
    # More opaque it is not; a smaller shape of the same mass is not alike.
    assert best_fit(alpha, min_opacity=0.8).overlap < 0.8


def test_what_has_the_moments_of_a_shape_need_not_be_one():
    """Two bars beside each other, 8 × 2 pixels at a distance of 8: a square of their mass overlaps with few."""
    alpha = np.zeros((PIXELS, PIXELS))
    alpha[12:20, [10, 11, 20, 21]] = 1.0
    assert best_fit(alpha, min_opacity=0.2).overlap < 0.5
    assert best_fit(alpha, min_opacity=0.6) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_out_of_range_do_not_count_and_pass_for_nothing_else(shape):
    for radius in (
        0.7 * RADIUS_RANGE[0],
        0.9 * RADIUS_RANGE[0],
        1.1 * RADIUS_RANGE[1],
        1.3 * RADIUS_RANGE[1],
    ):
        assert best_fit(painted(shape, 20.2, 19.9, radius), min_opacity=0.6) is None


def test_nothing_fits_nothing():
    assert best_fit(np.zeros((PIXELS, PIXELS)), min_opacity=0.6) is None
    assert best_fit(np.ones((PIXELS, PIXELS)), min_opacity=0.6) is None
