import math

import numpy as np
import pytest

from mmrpt_jax.scenes.render import BACKGROUND, PALETTE, coverage, render
from mmrpt_jax.scenes.world import COLORS, SHAPES, Object, Scene


def test_background_and_interior_pixels():
    image = render(Scene((Object("square", "green", "large", 20, 40),)))
    assert image.shape == (64, 64, 3)
    assert image.dtype == np.uint8
    assert tuple(image[0, 0]) == BACKGROUND
    # x runs along columns, y along rows.
    assert tuple(image[40, 20]) == PALETTE["green"]
    assert tuple(image[20, 40]) == BACKGROUND


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(
    ("shape", "area"),
    [("circle", math.pi), ("square", 1.7**2), ("triangle", 1.85**2 / 2), ("cross", 2 * 2 * 0.7 - 0.7**2)],
)
def test_coverage_sums_to_the_area_of_the_shape(shape, size, area):
    radius = {"small": 6, "large": 9}[size]
    assert coverage(shape, size).sum() == pytest.approx(area * radius**2, rel=0.03)


def test_edge_pixel_is_blended_by_the_covered_fraction():
    # A large square reaches 0.85 · 9 = 7.65 pixels to each side; its edge pixel lies from 7 to 8 and has its
    # subpixel centres at 7 + (i + 0.5) / 8, five of which are inside.
    image = render(Scene((Object("square", "blue", "large", 32, 32),)))
    blend = 5 / 8 * np.array(PALETTE["blue"]) + 3 / 8 * np.array(BACKGROUND)
    np.testing.assert_allclose(image[32, 32 + 7], blend, atol=0.5)
    np.testing.assert_allclose(image[32, 32 - 8], blend, atol=0.5)


def test_shapes_are_upright():
    above, below = coverage("triangle", "large")[:9].sum(), coverage("triangle", "large")[9:].sum()
    assert below > 2 * above
    for shape in SHAPES:
        np.testing.assert_array_equal(coverage(shape, "small"), coverage(shape, "small")[:, ::-1])


def test_order_of_disjoint_objects_does_not_matter():
    a, b = Object("circle", "red", "small", 10, 10), Object("cross", "purple", "large", 40, 30)
    both = render(Scene((a, b)))
    alone = np.minimum(render(Scene((a,))).astype(int) - 238, 0) + np.minimum(
        render(Scene((b,))).astype(int) - 238, 0
    )
    darker = np.minimum(both.astype(int) - 238, 0)
    np.testing.assert_array_equal(darker, alone)


def test_colors_are_far_from_each_other_and_from_the_background():
    points = np.array([*(PALETTE[color] for color in COLORS), BACKGROUND], float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e3 * np.eye(len(points))
    assert distance.min() > 85


def test_object_outside_the_image_is_refused():
    with pytest.raises(ValueError, match="leaves the image"):
        render(Scene((Object("circle", "red", "large", 4, 30),)))
