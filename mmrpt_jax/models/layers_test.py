import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.layers import MLP, LayerNorm, Linear, RMSNorm, activation

X = np.random.default_rng(0).normal(0.0, 3.0, (2, 3, 6)).astype(np.float32)


def randomised(module, *inputs):
    """Parameters of a module, all random, so that none of them is neutral."""
    shapes = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_rms_norm():
    params = randomised(RMSNorm(eps=0.5), X)
    wide = X.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 0.5) * params["scale"]
    np.testing.assert_allclose(RMSNorm(eps=0.5).apply({"params": params}, X), expected, rtol=1e-5)


def test_a_centred_scale_is_stored_as_its_distance_from_one():
    fresh = RMSNorm(centred=True).init(jax.random.key(0), X)["params"]
    assert not nn.unbox(fresh)["scale"].any()
    params = randomised(RMSNorm(centred=True), X)
    expected = RMSNorm().apply({"params": {"scale": params["scale"] + 1}}, X)
    np.testing.assert_allclose(RMSNorm(centred=True).apply({"params": params}, X), expected, rtol=1e-6)


def test_layer_norm():
    params = randomised(LayerNorm(eps=0.5), X)
    wide = X.astype(np.float64)
    normed = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 0.5)
    expected = normed * params["scale"] + params["bias"]
    np.testing.assert_allclose(
        LayerNorm(eps=0.5).apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5
    )


def test_rms_norm_of_bfloat16_is_computed_in_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    params = randomised(RMSNorm(), X)
    normed = RMSNorm().apply({"params": params}, x)
    assert normed.dtype == jnp.bfloat16
    expected = RMSNorm().apply({"params": params}, x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(normed, expected)


@pytest.mark.parametrize("use_bias", [False, True])
def test_linear(use_bias):
    linear = Linear(4, ("embed", "mlp"), use_bias=use_bias)
    params = randomised(linear, X)
    expected = X.astype(np.float64) @ params["kernel"] + params.get("bias", 0.0)
    np.testing.assert_allclose(linear.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-5)


def test_gated_mlp():
    params = randomised(MLP(6, 5), X)
    gate, up, down = (params[name]["kernel"].astype(np.float64) for name in ("gate", "up", "down"))
    expected = ((X @ gate) / (1 + np.exp(-(X @ gate))) * (X @ up)) @ down
    np.testing.assert_allclose(MLP(6, 5).apply({"params": params}, X), expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_the_gated_mlp_are_those_of_its_formula():
    x = np.random.default_rng(4).normal(size=(2, 3, 4, 6)).astype(np.float32)
    towards = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    params = randomised(MLP(6, 5), x)

    def formula(params, x):
        gate, up, down = (params[name]["kernel"] for name in ("gate", "up", "down"))
        hidden = nn.silu(jnp.einsum("bgtd,df->bgtf", x, gate)) * jnp.einsum("bgtd,df->bgtf", x, up)
        return jnp.vdot(towards, jnp.einsum("bgtf,fd->bgtd", hidden, down))

    def module(params, x):
        return jnp.vdot(towards, MLP(6, 5).apply({"params": params}, x))

    found, expected = (jax.grad(f, argnums=(0, 1))(params, x) for f in (module, formula))
    for leaf, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_plain_mlp_with_biases():
    mlp = MLP(6, 5, gated=False, activation="quick_gelu", use_bias=True)
    params = randomised(mlp, X)
    inner = X.astype(np.float64) @ params["up"]["kernel"] + params["up"]["bias"]
    expected = inner / (1 + np.exp(-1.702 * inner)) @ params["down"]["kernel"] + params["down"]["bias"]
    np.testing.assert_allclose(mlp.apply({"params": params}, X), expected, rtol=1e-4, atol=1e-4)


def test_activations():
    x = np.linspace(-3.0, 3.0, 13, dtype=np.float32)
    exact = np.array([v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    tanh = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(activation("gelu")(x), exact, atol=1e-6)
    np.testing.assert_allclose(activation("gelu_tanh")(x), tanh, atol=1e-6)
