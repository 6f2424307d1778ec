import dataclasses

import jax
import numpy as np
import pytest

from mmrpt_jax.models.latents import (
    LatentTokens,
    grid_positions,
    pack_latents,
    time_features,
    unpack_latents,
)
from mmrpt_jax.models.unified_config import LatentConfig

CONFIG = LatentConfig(channels=3, downsample=8, height=4, width=6)
D = 16


def test_packing_is_that_of_bagel():
    latents = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    # "c h p w q -> (h w) (p q c)"
    split = latents.transpose(0, 3, 1, 2).reshape(2, 3, 2, 2, 3, 2)
    expected = np.einsum("bchpwq->bhwpqc", split).reshape(2, 6, 12)
    packed = pack_latents(latents, 2)
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_array_equal(unpack_latents(packed, CONFIG.grid, 2), latents)


def test_packing_takes_any_leading_axes():
    latents = np.random.default_rng(0).normal(size=(2, 5, 4, 6, 3))
    packed = pack_latents(latents, 2)
    assert packed.shape == (2, 5, CONFIG.num_tokens, CONFIG.features)
    np.testing.assert_array_equal(packed[1, 3], pack_latents(latents[1, 3], 2))
    np.testing.assert_array_equal(unpack_latents(packed, CONFIG.grid, 2), latents)


def test_sizes():
    assert (CONFIG.grid, CONFIG.num_tokens, CONFIG.features) == ((2, 3), 6, 12)
    assert CONFIG.image_size == (32, 48)
    with pytest.raises(ValueError, match="latent grid 4x5 does not divide into squares of pack 2"):
        LatentConfig(channels=3, downsample=8, height=4, width=5)


def test_time_features():
    times = np.array([[0.0, 0.25], [0.7, 1.0]])
    expected = np.zeros((2, 2, 256))
    for i in range(128):
        frequency = np.exp(-np.log(10_000) * i / 128)
        expected[..., i], expected[..., 128 + i] = np.cos(times * frequency), np.sin(times * frequency)
    np.testing.assert_allclose(time_features(times), expected, atol=1e-6)


def sincos_table(side, width):
    """A square of fixed positions in float64, as BAGEL fills it: [side² D]."""
    columns, rows = (grid.reshape(-1) for grid in np.meshgrid(np.arange(side), np.arange(side)))
    omega = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))

    def encode(places):
        return np.concatenate([np.sin(np.outer(places, omega)), np.cos(np.outer(places, omega))], axis=1)

    return np.concatenate([encode(columns), encode(rows)], axis=1)


@pytest.mark.parametrize("side", [3, 64])
def test_positions_are_picked_from_a_square_of_any_size(side):
    index = [row * side + column for row in range(2) for column in range(3)]
    np.testing.assert_allclose(grid_positions(2, 3, D), sincos_table(side, D)[index], atol=1e-6)


def test_a_token_is_projection_time_and_place():
    rng = np.random.default_rng(0)
    latents, times = rng.normal(size=(2, 3, 6, 12)).astype(np.float32), rng.random((2, 3)).astype(np.float32)
    module = LatentTokens(CONFIG, D)
    variables = jax.eval_shape(module.init, jax.random.key(0), latents, times)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), variables)["params"]
    params = jax.tree.map(lambda box: box.value, params, is_leaf=lambda x: hasattr(x, "value"))

    def linear(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    hidden = linear("time_in", np.asarray(time_features(times)))
    time = linear("time_out", hidden / (1 + np.exp(-hidden)))
    expected = linear("inward", latents) + time[:, :, None] + sincos_table(3, D)[[0, 1, 2, 3, 4, 5]]
    found = module.apply({"params": params}, latents, times, method=LatentTokens.embed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    out = module.apply({"params": params}, found, latents, times, method=LatentTokens.flow)
    np.testing.assert_allclose(out, linear("outward", expected), rtol=1e-4, atol=1e-3)
    # x_t = (1 − t)·x₀ + t·ε, and so ε − x₀ = (x_t − x₀) / t.
    times[0, 0] = 0.01
    module = LatentTokens(dataclasses.replace(CONFIG, prediction="data"), D)
    out = module.apply({"params": params}, found, latents, times, method=LatentTokens.flow)
    divisor = np.where(times < 0.05, 0.05, times)[:, :, None, None]
    np.testing.assert_allclose(out, (latents - linear("outward", expected)) / divisor, rtol=1e-3, atol=1e-2)
