import io
import itertools

import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.scenes.fit_test import painted
from mmrpt_jax.scenes.render import BACKGROUND, PALETTE, render
from mmrpt_jax.scenes.verifier import examine, read
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


def noise(pixels, sigma):
    """Gaussian noise in units of 1/255."""
    return pixels + np.random.default_rng(0).normal(0.0, sigma, pixels.shape)


def blur(pixels, sigma):
    """Gaussian blur, sigma in pixels."""
    ticks = np.arange(64)
    kernel = np.exp(-0.5 * ((ticks[:, None] - ticks) / sigma) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.einsum("yi,xj,ijc->yxc", kernel, kernel, pixels, optimize=True)


def jpeg(pixels, quality):
    stream = io.BytesIO()
    Image.fromarray(as_image(pixels)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).astype(float)


def fade(pixels, strength):
    return BACKGROUND[0] + strength * (pixels - BACKGROUND[0])


def as_image(pixels):
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def share_read_exactly(damage, count=25):
    scenes = [sample_scene(WORLDS["unbiased"], 12, i) for i in range(count)]
    return np.mean([read(as_image(damage(render(scene).astype(float)))) == scene for scene in scenes])


@pytest.mark.parametrize(
    ("damage", "at_least"),
    [
        (lambda pixels: noise(pixels, 10), 1.0),
        (lambda pixels: noise(pixels, 25), 0.95),
        (lambda pixels: blur(pixels, 1.0), 1.0),
        (lambda pixels: blur(pixels, 1.5), 0.95),
        (lambda pixels: jpeg(pixels, 50), 0.95),
        (lambda pixels: jpeg(pixels, 25), 0.85),
        (lambda pixels: jpeg(noise(blur(pixels, 1.0), 10), 50), 0.95),
        (lambda pixels: fade(pixels, 0.8), 1.0),
        (lambda pixels: pixels + np.array([12, -8, 10]), 1.0),
    ],
    ids=["noise", "much noise", "blur", "much blur", "jpeg", "coarse jpeg", "all three", "pale", "tinted"],
)
def test_imperfect_images_are_read_to_the_pixel(damage, at_least):
    assert share_read_exactly(damage) >= at_least


def test_blur_that_joins_two_objects_does_not_hide_them():
    scene = Scene((Object("square", "red", "small", 20, 30), Object("circle", "blue", "small", 34, 30)))
    assert read(as_image(blur(render(scene).astype(float), 1.5))) == scene


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [5.5, 6.7, 8.0, 9.6])
def test_objects_off_the_pixel_grid_and_between_the_sizes_are_read(shape, radius):
    rng = np.random.default_rng(4)
    for color in COLORS:
        x, y = rng.uniform(11.0, 53.0, 2)
        covered = painted(shape, x, y, radius, pixels=64)[..., None]
        image = as_image(covered * np.array(PALETTE[color]) + (1.0 - covered) * np.array(BACKGROUND))
        (obj,) = read(image).objects
        assert (obj.shape, obj.color, obj.size) == (shape, color, "small" if radius < 7 else "large")
        assert abs(obj.x - x) < 0.7 and abs(obj.y - y) < 0.7


def test_half_faded_and_discoloured_objects_do_not_count():
    scene = Scene((Object("circle", "red", "large", 20, 20), Object("square", "blue", "large", 45, 45)))
    pixels = render(scene).astype(float)
    assert read(as_image(fade(pixels, 0.5))).objects == ()
    for gray in (0, 128, 180):
        disc = np.where((pixels == PALETTE["red"]).all(-1, keepdims=True), gray, pixels)
        assert read(as_image(disc)).objects == (scene.objects[1],)


def test_validity_by_hand():
    assert examine(np.full((64, 64, 3), BACKGROUND, np.uint8)).validity == 1.0
    assert examine(np.zeros((64, 64, 3), np.uint8)).validity == 0.0
    image = render(Scene((Object("cross", "green", "large", 20, 20),)))
    assert examine(image).validity == 1.0
    image[44:, :] = 0
    # Twenty of 64 rows are black.
    assert examine(image).validity == pytest.approx(44 / 64)
    assert len(examine(image).scene.objects) == 1


@pytest.mark.parametrize("value", [0, 128, 255, BACKGROUND[0]])
def test_plain_images_hold_nothing(value):
    assert read(np.full((64, 64, 3), value, np.uint8)) == Scene(())


def test_junk_is_not_read_as_objects():
    rng = np.random.default_rng(1)
    assert read(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).objects == ()
    stripes = np.full((64, 64, 3), BACKGROUND, np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = PALETTE["red"]
    assert read(stripes).objects == ()


@pytest.mark.parametrize("side", [1, 2, 4, 32])
def test_checkerboards_and_half_tones_hold_nothing(side):
    board = np.add.outer(np.arange(64) // side, np.arange(64) // side) % 2 == 0
    for color in PALETTE.values():
        assert read(np.where(board[..., None], color, BACKGROUND).astype(np.uint8)).objects == ()
    scene = sample_scene(WORLDS["unbiased"], 13, side)
    if side == 1:
        assert read(np.where(board[..., None], render(scene), BACKGROUND).astype(np.uint8)).objects == ()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 6.0])
def test_smooth_noise_is_hardly_ever_an_object(sigma):
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(10):
        pixels = blur(rng.normal(0.0, 1.0, (64, 64, 3)), sigma)
        found += len(read(as_image(rng.choice([128, 238]) + 60 * pixels / pixels.std())).objects)
    assert found <= 2


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


@pytest.mark.parametrize("times", [2, 8])
def test_larger_images_are_read_through_the_means_of_squares(times):
    scene = sample_scene(WORLDS["unbiased"], 11, 3)
    pixels = np.kron(render(scene), np.ones((times, times, 1))).astype(int)
    # Neighbours go up and down by turns, so that no square changes its mean.
    pixels = np.clip(pixels, 40, 215) + 40 * (-1) ** np.indices(pixels.shape[:2]).sum(axis=0)[..., None]
    expected = np.clip(render(scene), 40, 215)
    assert examine(pixels.astype(np.uint8)) == examine(expected)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 64, 3), np.uint8),
        np.zeros((128, 64, 3), np.uint8),
        np.zeros((96, 96, 3), np.uint8),
        np.zeros((64, 64, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match="Expected uint8"):
        read(array)
