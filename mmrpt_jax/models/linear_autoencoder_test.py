import jax
import numpy as np
import pytest

from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.models.autoencoder import to_pixels, to_uint8
from mmrpt_jax.models.linear_autoencoder import (
    fit_linear_autoencoder,
    load_linear_autoencoder,
    save_linear_autoencoder,
)
from mmrpt_jax.scenes import read

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), np.uint8)


def patches_of(images, size):
    """[N · patches, 3 · size²], one patch after the other."""
    n, height, width, _ = images.shape
    cut = [
        images[i, y : y + size, x : x + size].reshape(-1)
        for i in range(n)
        for y in range(0, height, size)
        for x in range(0, width, size)
    ]
    return np.float64(cut) / 127.5 - 1.0


def test_latents_are_the_coefficients_of_principal_components():
    coder = fit_linear_autoencoder(IMAGES, downsample=2, channels=5)
    assert (coder.channels, coder.downsample) == (5, 2)
    latents = np.asarray(coder.encode(IMAGES))
    assert latents.shape == (3, 4, 6, 5)
    # By singular values instead of eigenvalues; signs are free.
    patches = patches_of(IMAGES, 2)
    centred = patches - patches.mean(axis=0)
    _, spread, rows = np.linalg.svd(centred, full_matrices=False)
    variances = spread[:5] ** 2 / (len(patches) - 1)
    expected = centred @ rows[:5].T / np.sqrt(variances.mean())
    np.testing.assert_allclose(np.abs(latents.reshape(-1, 5)), np.abs(expected), atol=1e-4)


def test_all_components_lose_nothing_and_few_lose_least():
    whole = fit_linear_autoencoder(IMAGES, downsample=2, channels=12)
    np.testing.assert_array_equal(to_uint8(whole.decode(whole.encode(IMAGES))), IMAGES)
    few = fit_linear_autoencoder(IMAGES, downsample=2, channels=5)
    error = np.sum((np.asarray(few.decode(few.encode(IMAGES))) - np.asarray(to_pixels(IMAGES))) ** 2)
    spread = np.linalg.svd(patches_of(IMAGES, 2) - patches_of(IMAGES, 2).mean(axis=0), compute_uv=False)
    assert error == pytest.approx(np.sum(spread[5:] ** 2), rel=1e-4)


def test_sixteen_numbers_for_a_patch_show_the_embedded_world_as_it_is():
    pictures = np.stack([DrawingSource("biased", split="train", size=160)[i]["image"] for i in range(160)])
    coder = fit_linear_autoencoder(pictures[:120], downsample=8, channels=16)
    for picture in pictures[120:]:
        shown = read(np.asarray(to_uint8(coder.decode(coder.encode(picture)))))
        assert [obj.pair for obj in shown.objects] == [obj.pair for obj in read(picture).objects]


def test_it_passes_into_compiled_functions_and_through_a_file(tmp_path):
    coder = fit_linear_autoencoder(IMAGES, downsample=2, channels=5)
    save_linear_autoencoder(tmp_path / "coder.safetensors", coder)
    found = load_linear_autoencoder(tmp_path / "coder.safetensors")
    encode = jax.jit(lambda coder, images: coder.encode(images))
    np.testing.assert_array_equal(encode(found, IMAGES), encode(coder, IMAGES))


def test_more_components_than_there_are_numbers():
    with pytest.raises(ValueError, match="13 channels are more than the 12 numbers of a patch of 2 x 2"):
        fit_linear_autoencoder(IMAGES, downsample=2, channels=13)
