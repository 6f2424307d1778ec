import itertools

import numpy as np
import pytest

from mmrpt_jax.scenes.render import BACKGROUND, PALETTE, render
from mmrpt_jax.scenes.verifier import label_components, read
from mmrpt_jax.scenes.world import COLORS, SHAPES, SIZES, WORLDS, Object, Scene, sample_scene


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_reads_rendered_scenes_back_exactly(name):
    for i in range(150):
        scene = sample_scene(WORLDS[name], 11, i)
        assert read(render(scene)) == scene


def test_reads_every_kind_of_object_in_the_corners():
    for shape, color, size in itertools.product(SHAPES, COLORS, SIZES):
        r = {"small": 6, "large": 9}[size]
        scene = Scene((Object(shape, color, size, r, r), Object(shape, color, size, 64 - r, 64 - r)))
        assert read(render(scene)) == scene


def test_reads_through_noise_and_a_slight_blur():
    rng = np.random.default_rng(0)
    for i in range(40):
        scene = sample_scene(WORLDS["unbiased"], 12, i)
        pixels = render(scene).astype(float)
        blurred = 0.6 * pixels + 0.1 * sum(
            np.roll(pixels, shift, axis) for shift in (-1, 1) for axis in (0, 1)
        )
        noisy = np.clip(blurred + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        assert read(noisy) == scene


@pytest.mark.parametrize("value", [0, 128, 255, BACKGROUND[0]])
def test_plain_images_hold_nothing(value):
    assert read(np.full((64, 64, 3), value, np.uint8)) == Scene(())


def test_junk_is_not_read_as_objects():
    rng = np.random.default_rng(1)
    assert read(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).objects == ()
    stripes = np.full((64, 64, 3), BACKGROUND, np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = PALETTE["red"]
    assert read(stripes).objects == ()


def test_patchworks_of_random_colors_do_not_raise():
    rng = np.random.default_rng(2)
    for _ in range(40):
        side = int(rng.choice([1, 4, 8, 16]))
        patches = rng.integers(0, 256, (64 // side, 64 // side, 3), dtype=np.uint8)
        patches[rng.random(patches.shape[:2]) < 0.7] = BACKGROUND
        image = patches.repeat(side, axis=0).repeat(side, axis=1)
        assert isinstance(read(image), Scene)


def test_speck_and_long_bar_are_ignored_beside_an_object():
    scene = Scene((Object("triangle", "orange", "large", 20, 20),))
    image = render(scene)
    image[50:52, 50:52] = PALETTE["blue"]
    image[58, 5:60] = PALETTE["red"]
    assert read(image) == scene


def test_touching_objects_do_not_raise():
    image = np.minimum(
        render(Scene((Object("square", "red", "large", 20, 20),))),
        render(Scene((Object("square", "blue", "large", 30, 26),))),
    )
    assert len(read(image).objects) <= 1


@pytest.mark.parametrize("array", [np.zeros((32, 64, 3), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="Expected uint8"):
        read(array)


def test_components_join_at_corners():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 1]], bool)
    labels, count = label_components(mask)
    assert count == 4
    np.testing.assert_array_equal(labels, [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 4]])
