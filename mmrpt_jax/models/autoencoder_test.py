import jax
import numpy as np
import pytest

from mmrpt_jax.models.autoencoder import (
    PatchAutoencoder,
    decode_tokens,
    encode_tokens,
    to_pixels,
    to_uint8,
)
from mmrpt_jax.models.unified_config import LatentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12, 3), np.uint8)


def test_every_byte_survives():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    np.testing.assert_array_equal(to_uint8(to_pixels(every)), every)
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, -1.0, 0.0, 1.0, 3.0])), [0, 0, 128, 255, 255])


@pytest.mark.parametrize("coder", [PatchAutoencoder(4), PatchAutoencoder(2, shift=0.3, scale=2.7)])
def test_patches_give_every_byte_back(coder):
    latents = coder.encode(IMAGES)
    size = coder.downsample
    assert latents.shape == (2, 3, 8 // size, 12 // size, coder.channels)
    np.testing.assert_array_equal(to_uint8(coder.decode(latents)), IMAGES)


def test_a_latent_is_a_patch_row_by_row():
    latents = PatchAutoencoder(4, shift=0.5, scale=2.0).encode(IMAGES)
    patch = IMAGES[1, 2, 4:8, 8:12].reshape(-1) / 127.5 - 1.0
    np.testing.assert_allclose(latents[1, 2, 1, 2], (patch - 0.5) * 2.0, atol=1e-6)


def test_it_passes_into_compiled_functions():
    @jax.jit
    def there_and_back(coder, images):
        return to_uint8(coder.decode(coder.encode(images)))

    coder = PatchAutoencoder(4)
    np.testing.assert_array_equal(there_and_back(coder, IMAGES), IMAGES)
    assert jax.tree.leaves(coder) == []


def test_images_become_tokens_and_come_back():
    config = LatentConfig(channels=12, downsample=2, height=4, width=6)
    assert config.image_size == IMAGES.shape[2:4]
    tokens = encode_tokens(PatchAutoencoder(2), IMAGES, config)
    assert tokens.shape == (2, 3, config.num_tokens, config.features)
    # A token of 2x2 latents of 2x2 pixels is a square of 4x4 pixels.
    square = np.sort(IMAGES[1, 2, 4:8, 8:12].reshape(-1))
    np.testing.assert_array_equal(np.sort(to_uint8(tokens[1, 2, 5])), square)
    np.testing.assert_array_equal(decode_tokens(PatchAutoencoder(2), tokens, config), IMAGES)


def test_an_autoencoder_that_does_not_fit_is_refused():
    config = LatentConfig(channels=16, downsample=8, height=4, width=6)
    message = "the autoencoder has 12 channels at 1/2 of the image, the model draws 16 at 1/8"
    with pytest.raises(ValueError, match=message):
        encode_tokens(PatchAutoencoder(2), IMAGES, config)
    with pytest.raises(ValueError, match=message):
        decode_tokens(PatchAutoencoder(2), np.zeros((1, 6, 64)), config)
