"""DiffusionNFT by hand, in its gradients, and against an independent reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.nft import nft_loss
from mmrpt_jax.objectives.reductions import divide


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def pixel(value):
    """An image of one dimension."""
    return jnp.full((1, 1, 1), value)


def random_batch():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, 5, 3, 2)).astype(np.float32)
    times = rng.uniform(0.1, 1, 5).astype(np.float32)
    advantages = np.array([0.5, -1.0, 7.0, -9.0, 2.0], np.float32)
    return [jnp.asarray(x) for x in (*latents, times, advantages, np.ones(5, bool))]


def test_by_hand():
    latents = (pixel(2.0), pixel(1.0), pixel(3.0), pixel(1.5))
    args = (*latents, jnp.array([0.5]), jnp.array([2.0]), jnp.ones(1, bool))
    total, count, metrics = nft_loss(*args, beta=0.4)
    # v± = 1 ± 0.4; x_0± = 3 - 0.7 = 2.3 and 3 - 0.3 = 2.7; errors 0.8 and 1.2. In one dimension |·|² / w = |·|.
    # r = 0.7: (0.7 · 0.8 + 0.3 · 1.2) / 0.4 = 2.3.
    assert_close((total, count), (2.3, 1))
    expected = {"optimality": 0.7, "positive_error": 0.64, "negative_error": 1.44, "velocity_change": 1.0}
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(metrics[name], (value, 1))


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize(
    "advantage, gradient",
    # 2 t (1 - 2 r) sign(error), with t = 0.5 and x_0 = 2.5 predicted for 1.5: r = 1, 0.6, 0.5 and 0.
    [(9.0, -1.0), (1.0, -0.2), (0.0, 0.0), (-5.0, 1.0)],
)
def test_first_gradient(beta, advantage, gradient):
    def loss(velocity):
        args = (pixel(1.0), pixel(3.0), pixel(1.5), jnp.array([0.5]), jnp.array([advantage]))
        return nft_loss(velocity, *args, jnp.ones(1, bool), beta=beta)[0]

    assert_close(jax.grad(loss)(pixel(1.0)), [[[gradient]]])


def test_only_the_policy_carries_a_gradient():
    velocity, *rest, mask = random_batch()
    gradients = jax.grad(lambda *args: nft_loss(*args, mask)[0], argnums=range(6))(velocity, *rest)
    assert gradients[0].any()
    assert not any(gradient.any() for gradient in gradients[1:])


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_against_a_reference(beta):
    """Image by image, in the order of the paper's formulas."""
    batch = random_batch()
    expected = 0.0
    for velocity, old, noised, clean, t, advantage in zip(
        *(np.asarray(x, float) for x in batch[:6]), strict=True
    ):
        r = min(max(advantage / 5, -1), 1) / 2 + 0.5
        positive = noised - t * ((1 - beta) * old + beta * velocity)
        negative = noised - t * ((1 + beta) * old - beta * velocity)
        for share, predicted in ((r, positive), (1 - r, negative)):
            expected += share * np.mean((predicted - clean) ** 2) / np.mean(np.abs(predicted - clean)) / beta
    total, count, _ = nft_loss(*batch, beta=beta)
    assert_close((total, count), (expected, 5))


def test_weight_is_held_constant():
    velocity, *rest = random_batch()
    direction = np.random.default_rng(1).normal(size=velocity.shape).astype(np.float32)

    def images(x):
        return np.asarray(x, float)

    def with_weights_of(first, second):
        """The loss at `second` with the weights of `first`, for beta = 1, in NumPy."""
        old, noised, clean, t, advantage, _ = (images(x) for x in rest)
        r = np.clip(advantage / 5, -1, 1) / 2 + 0.5
        total = 0.0
        for share, sign in ((r, 1), (1 - r, -1)):
            gaps = [noised - t[:, None, None] * (old + sign * (v - old)) - clean for v in (first, second)]
            total += np.sum(share * np.mean(gaps[1] ** 2, (1, 2)) / np.mean(np.abs(gaps[0]), (1, 2)))
        return total

    h, v = 1e-5, images(velocity)
    slope = (with_weights_of(v, v + h * direction) - with_weights_of(v, v - h * direction)) / (2 * h)
    gradient = jax.grad(lambda v: nft_loss(v, *rest)[0])(velocity)
    assert_close(np.sum(gradient * direction), slope, rtol=1e-4)


def test_a_perfect_prediction_is_no_division_by_zero():
    args = (
        pixel(1.0),
        pixel(1.0),
        pixel(2.0),
        pixel(1.5),
        jnp.array([0.5]),
        jnp.array([1.0]),
        jnp.ones(1, bool),
    )
    value, gradient = jax.value_and_grad(lambda *args: nft_loss(*args)[0])(*args)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_kl_term():
    batch = random_batch()
    kl = jnp.arange(5.0)
    without, _, _ = nft_loss(*batch)
    total, _, metrics = nft_loss(*batch, kl=kl, kl_coefficient=0.1)
    assert_close(total - without, 0.1 * 10, rtol=1e-4)
    assert_close(metrics["kl"], (10, 5))
    gradient = jax.grad(lambda kl: nft_loss(*batch, kl=kl, kl_coefficient=0.1)[0])(kl)
    assert_close(gradient, np.full(5, 0.1))


def test_what_stands_outside_the_mask_has_no_effect():
    *batch, _ = random_batch()
    mask = jnp.array([True, False, True, True, False])

    def loss(velocity, *rest):
        total, count, _ = nft_loss(velocity, *rest[:-1], mask, kl=rest[-1], kl_coefficient=0.1)
        return divide(total, count)

    args = (*batch, jnp.ones(5))
    clean = jax.value_and_grad(loss)(*args)
    value, gradient = jax.value_and_grad(loss)(*(x.at[jnp.array([1, 4])].set(jnp.nan) for x in args))
    assert value == clean[0]
    np.testing.assert_array_equal(gradient, clean[1])
    assert not gradient[~mask].any()


def test_bad_arguments():
    batch = random_batch()
    with pytest.raises(ValueError, match="beta"):
        nft_loss(*batch, beta=0.0)
    with pytest.raises(ValueError, match="pass kl"):
        nft_loss(*batch, kl_coefficient=0.1)
