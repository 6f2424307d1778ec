import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.data.prompts import Wording, encode_prompts
from mmrpt_jax.models import initialise
from mmrpt_jax.models.autoencoder import PatchAutoencoder, encode_tokens
from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.training.accumulate import accumulate_gradients
from mmrpt_jax.training.drawing import DrawingBatch, make_drawing_loss

CODER = PatchAutoencoder(4)
SEEDS = np.array([5, 9, 5, 7], np.int32)


@pytest.fixture(scope="module")
def config(tiny_model):
    """Two by two latent tokens of 8 x 8 pixels each."""
    return UnifiedConfig(tiny_model, LatentConfig(channels=48, downsample=4, height=4, width=4), "mot")


@pytest.fixture(scope="module")
def params(config):
    """The head begins at zero; here it is moved away from there."""
    fresh = initialise(config, jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape), fresh)


@pytest.fixture(scope="module")
def images():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 16, 3), np.uint8)
    images[2] = images[0]
    return images


@pytest.fixture(scope="module")
def batch(config, tiny_tokenizer, images):
    texts = [
        Wording().drawing_prompt(text)
        for text in ("a red circle .", "two green triangles .", "", "a blue square .")
    ]
    prompt = encode_prompts(tiny_tokenizer, texts, image_tokens=0, images=0, lengths=(40,))
    clean = encode_tokens(CODER, images, config.latent)
    return DrawingBatch(prompt, clean, np.float32([[1, 1], [1, 0], [2, 1], [0, 0.5]]), SEEDS)


encoded = jax.jit(encode_prompt, static_argnums=0)
velocity_of = jax.jit(velocity, static_argnums=0)


def by_hand(config, params, batch, images, rows):
    """Σ w · mean squared error, one picture at a time, with noise and times recovered from the seeds."""
    total = 0.0
    for row in rows:
        for_times, for_noise = jax.random.split(jax.random.key(SEEDS[row]))
        times = np.asarray(jax.nn.sigmoid(jax.random.normal(for_times, (2,))))
        noise = np.asarray(jax.random.normal(for_noise, (2, 4, 192)))
        prompt = jax.tree.map(lambda x, row=row: x[row : row + 1], batch.prompt)
        state = encoded(config, params, None, prompt)
        for place in range(2):
            # An 8 x 8 square of pixels, as four 4 x 4 patches, row by row.
            pixels = images[row, place] / 127.5 - 1
            squares = pixels.reshape(2, 2, 4, 2, 2, 4, 3).transpose(0, 3, 1, 4, 2, 5, 6)
            clean = squares.reshape(4, 192)
            noisy = (1 - times[place]) * clean + times[place] * noise[place]
            found = velocity_of(
                config, params, state, jnp.float32(noisy)[None, None], jnp.float32(times[place])[None, None]
            )
            error = np.mean((np.asarray(found)[0, 0] - (noise[place] - clean)) ** 2)
            total += batch.weights[row, place] * error
    return total


def test_loss_by_hand(config, params, batch, images):
    total, (count, _) = jax.jit(make_drawing_loss(config))(params, batch)
    np.testing.assert_allclose(count, batch.weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(total, by_hand(config, params, batch, images, range(4)), rtol=1e-4)


def test_the_noise_of_a_row_is_its_own(config, params, batch):
    loss = jax.jit(make_drawing_loss(config, shift=3.0, repeats=3))
    whole, _ = loss(params, batch)
    parts = [loss(params, jax.tree.map(lambda x, i=i: x[i : i + 1], batch))[0] for i in range(4)]
    np.testing.assert_allclose(whole, sum(map(float, parts)), rtol=1e-5)


def test_neither_split_nor_repeats_change_the_normaliser(config, params, batch):
    loss = make_drawing_loss(config, repeats=2)
    one, two = (
        jax.jit(lambda p, b, m=m: accumulate_gradients(loss, p, b, micro_batches=m))(params, batch)
        for m in (1, 2)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, two)
    # Every picture counts twice.
    _, (count, _) = jax.jit(loss)(params, batch)
    np.testing.assert_allclose(count, 2 * batch.weights.sum(), rtol=1e-6)
