"""Rows C9 and C11 to C13: values, gradients and clipping of the surrogates, worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.surrogate import cispo_surrogate, clipped_surrogate, gspo_surrogate

SURROGATES = {"clipped": clipped_surrogate, "gspo": gspo_surrogate, "cispo": cispo_surrogate}


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def with_ratio(ratio):
    """Log-probabilities of current and behaviour policy with the given ratio, the former being log 0.3."""
    ratio = jnp.asarray(ratio)
    logprobs = jnp.full(ratio.shape, jnp.log(0.3))
    return logprobs, logprobs - jnp.log(ratio)


def loss_and_gradient(surrogate, logprobs, behaviour_logprobs, advantages, mask):
    """Per-token loss, and the gradient of its sum with respect to `logprobs`."""

    def total(lp):
        out = surrogate(lp, behaviour_logprobs, advantages, mask)
        return jnp.sum(out.loss), out

    gradient, out = jax.grad(total, has_aux=True)(logprobs)
    return out, gradient


# Clip range 0.8 to 1.3. loss = -min(ρA, clip(ρ)A). With respect to log π, the unclipped gradient is -ρA.
CLIP_TABLE = [
    # A, ρ, loss, gradient, clipped
    (2.0, 0.5, -1.0, -1.0, False),  # min(1.0, 1.6): a good token that became rarer still learns
    (2.0, 1.0, -2.0, -2.0, False),  # min(2.0, 2.0)
    (2.0, 1.25, -2.5, -2.5, False),  # min(2.5, 2.5)
    (2.0, 1.5, -2.6, 0.0, True),  # min(3.0, 2.6): already likelier than the range allows
    (-2.0, 0.5, 1.6, 0.0, True),  # min(-1.0, -1.6): already rarer than the range allows
    (-2.0, 1.0, 2.0, 2.0, False),  # min(-2.0, -2.0)
    (-2.0, 1.5, 3.0, 3.0, False),  # min(-3.0, -2.6): a bad token that became likelier still learns
    (-2.0, 4.0, 8.0, 8.0, False),  # min(-8.0, -2.6): unbounded without dual clip
    (0.0, 4.0, 0.0, 0.0, False),
]


@pytest.mark.parametrize("advantage, ratio, loss, gradient, clipped", CLIP_TABLE)
def test_c11_clip_sign_table(advantage, ratio, loss, gradient, clipped):
    surrogate = functools.partial(clipped_surrogate, clip_low=0.2, clip_high=0.3)
    logprobs, behaviour = with_ratio([ratio])
    out, actual = loss_and_gradient(
        surrogate, logprobs, behaviour, jnp.array([advantage]), jnp.ones((1,), bool)
    )
    assert_close(out.loss, [loss])
    assert_close(actual, [gradient])
    assert_close(out.ratio, [ratio])
    assert out.clipped.tolist() == [clipped]


def test_c11_dual_clip_bounds_bad_tokens_only():
    surrogate = functools.partial(clipped_surrogate, dual_clip=3.0)
    logprobs, behaviour = with_ratio([4.0, 4.0, 2.0])
    advantages = jnp.array([-2.0, 2.0, -2.0])
    out, gradient = loss_and_gradient(surrogate, logprobs, behaviour, advantages, jnp.ones(3, bool))
    # A < 0, ρ = 4: 8 is capped at 3 · 2 = 6. A > 0: -min(8, 1.2 · 2). A < 0, ρ = 2: 4, below the cap.
    assert_close(out.loss, [6.0, -2.4, 4.0])
    assert_close(gradient, [0.0, 0.0, 4.0])
    assert out.clipped.tolist() == [True, True, False]


def test_c11_dual_clip_must_exceed_one():
    logprobs, behaviour = with_ratio([1.0])
    with pytest.raises(ValueError, match="dual_clip"):
        clipped_surrogate(logprobs, behaviour, jnp.ones(1), jnp.ones(1, bool), dual_clip=0.9)


@pytest.mark.parametrize("name", SURROGATES)
def test_c9_on_policy_ratio_is_one_and_gradient_is_reinforce(name):
    logprobs = jnp.log(jnp.array([[0.2, 0.5, 0.9], [0.1, 0.6, 0.3]]))
    advantages = jnp.array([1.5, -0.5])
    mask = jnp.array([[True, True, True], [True, True, False]])

    def total(lp):
        out = SURROGATES[name](lp, lp, advantages, mask)
        return jnp.sum(out.loss), out

    gradient, out = jax.grad(total, has_aux=True)(logprobs)
    np.testing.assert_array_equal(out.ratio, mask.astype(jnp.float32))
    assert not out.clipped.any()
    # d(-A log π) / d log π = -A.
    assert_close(gradient, [[-1.5, -1.5, -1.5], [0.5, 0.5, 0.0]])


def test_c12_cispo_learns_through_the_log_probability_only():
    logprobs, behaviour = with_ratio([0.5, 1.0, 8.0, 8.0])
    advantages = jnp.array([1.0, -2.0, 1.0, -1.0])
    out, gradient = loss_and_gradient(cispo_surrogate, logprobs, behaviour, advantages, jnp.ones(4, bool))
    # Weights min(ρ, 5) = 0.5, 1, 5, 5; the cap is 5 and not 1 + 5. The gradient is -w A. Were the weight
    # differentiated as well, the first would be -0.5 · (1 + log 0.3).
    weights = np.array([0.5, 1.0, 5.0, 5.0])
    assert_close(gradient, -weights * np.array([1.0, -2.0, 1.0, -1.0]))
    assert_close(out.loss, -weights * np.array([1.0, -2.0, 1.0, -1.0]) * np.log(0.3))
    assert out.clipped.tolist() == [False, False, True, True]


def test_c12_cispo_refuses_a_relative_clip_range():
    logprobs, behaviour = with_ratio([1.0])
    with pytest.raises(ValueError, match="absolute cap"):
        cispo_surrogate(logprobs, behaviour, jnp.ones(1), jnp.ones(1, bool), clip_high=0.28)


def test_c13_gspo_ratio_is_the_geometric_mean():
    # Token ratios 2 and 1/2 cancel: s = 1, inside even this narrow range. The third token is masked out.
    logprobs, behaviour = with_ratio([[2.0, 0.5, 9.0], [1.21, 1.0, 9.0]])
    mask = jnp.array([[True, True, False]] * 2)
    out, gradient = loss_and_gradient(gspo_surrogate, logprobs, behaviour, jnp.array([1.0, 1.0]), mask)
    # Second row: s = sqrt(1.21 · 1) = 1.1 is above 1 + 4e-4: loss -1.0004, no gradient.
    assert_close(out.ratio, [[1.0, 1.0, 0.0], [1.1, 1.1, 0.0]])
    assert_close(out.loss, [[-1.0, -1.0, 0.0], [-1.0004, -1.0004, 0.0]])
    assert_close(gradient, [[-1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
    assert out.clipped.tolist() == [[False] * 3, [True, True, False]]


def test_c13_gspo_gradient_is_that_of_the_sequence_ratio():
    logprobs = jnp.log(jnp.array([0.3, 0.6, 0.2]))
    behaviour = jnp.log(jnp.array([0.4, 0.5, 0.2]))
    surrogate = functools.partial(gspo_surrogate, clip_low=0.5, clip_high=0.5)
    _, gradient = loss_and_gradient(surrogate, logprobs, behaviour, jnp.array(2.0), jnp.ones(3, bool))
    # The mean over tokens is -A s, s = (0.75 · 1.2 · 1)^(1/3), and ds / d log π_t = s / 3 for each token.
    assert_close(gradient / 3, [-2.0 * 0.9 ** (1 / 3) / 3] * 3)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("junk", [jnp.nan, jnp.inf, -jnp.inf])
def test_c6_what_stands_outside_the_mask_has_no_effect(name, junk):
    mask = jnp.array([[True, False, True], [False, False, False]])
    logprobs, behaviour = with_ratio([[1.1, 1.1, 0.95], [1.0, 1.0, 1.0]])
    advantages = jnp.ones((2, 3))
    clean, clean_gradient = loss_and_gradient(SURROGATES[name], logprobs, behaviour, advantages, mask)
    spoilt = [jnp.where(mask, x, junk) for x in (logprobs, behaviour, advantages)]
    out, gradient = loss_and_gradient(SURROGATES[name], *spoilt, mask)
    for a, b in zip(jax.tree.leaves((clean, clean_gradient)), jax.tree.leaves((out, gradient)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.asarray(b)[~np.asarray(mask)], 0)


@pytest.mark.parametrize("name", SURROGATES)
def test_c15_extreme_ratios_stay_finite(name):
    logprobs = jnp.array([-1e-3, -500.0, -1e-3])
    behaviour = jnp.array([-500.0, -1e-3, -1e4])
    for advantage in (1.0, -1.0):
        out, gradient = loss_and_gradient(
            SURROGATES[name], logprobs, behaviour, jnp.array(advantage), jnp.ones(3, bool)
        )
        assert np.isfinite(out.loss).all() and np.isfinite(out.ratio).all() and np.isfinite(gradient).all()


def test_half_precision_inputs_give_float32():
    logprobs = jnp.full((2, 3), -1.0, jnp.bfloat16)
    out = clipped_surrogate(logprobs, logprobs, jnp.ones(2), jnp.ones((2, 3), bool))
    assert out.loss.dtype == out.ratio.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 3)])
def test_advantages_of_the_wrong_shape(shape):
    logprobs = jnp.zeros((2, 3))
    with pytest.raises(AssertionError):
        clipped_surrogate(logprobs, logprobs, jnp.ones(shape), jnp.ones((2, 3), bool))
