"""Supervised flow matching, weights of a group and Pair-DPO, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.flow_preference import (
    best_of_group_weights,
    flow_dpo_loss,
    flow_matching_errors,
    flow_matching_loss,
    preference_pairs,
    reward_weights,
)
from mmrpt_jax.objectives.reductions import divide

# Three images of one token and two channels. Targets ε - x_0: (2, 4), (-1, -3), (0, 0).
CLEAN = jnp.array([[[1.0, -2.0]], [[0.0, 4.0]], [[1.0, 1.0]]])
NOISE = jnp.array([[[3.0, 2.0]], [[-1.0, 1.0]], [[1.0, 1.0]]])
VELOCITY = jnp.array([[[2.0, 2.0]], [[0.0, 0.0]], [[3.0, 1.0]]])
ERRORS = [2.0, 5.0, 5.0]  # (0 + 4) / 2, (1 + 9) / 2, (9 + 1) / 2
ALL = jnp.ones(3, bool)


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def test_errors():
    assert_close(flow_matching_errors(VELOCITY, CLEAN, NOISE), ERRORS)
    assert_close(flow_matching_loss(VELOCITY, CLEAN, NOISE, ALL), (12, 3))


def test_weighted_loss():
    weights = jnp.array([0.5, 0.25, jnp.nan])
    mask = jnp.array([True, True, False])
    total, count = flow_matching_loss(VELOCITY, CLEAN, NOISE, mask, weights=weights)
    # 0.5 · 2 + 0.25 · 5 over 0.75: a mean of errors, whatever the weights add up to.
    assert_close((total, count), (2.25, 0.75))


def test_gradient_of_the_error():
    def loss(*latents):
        return divide(*flow_matching_loss(*latents, ALL))

    of_velocity, of_clean, of_noise = jax.grad(loss, argnums=(0, 1, 2))(VELOCITY, CLEAN, NOISE)
    # 2 (v - target) / 2 dimensions / 3 images; the target is data.
    assert_close(of_velocity, np.array([[[0, -2]], [[1, 3]], [[3, 1]]]) / 3)
    assert not of_clean.any() and not of_noise.any()


def test_reward_weights():
    # softmax of (0, log 2, log 5) is (1, 2, 5) / 8; at half the temperature its squares (1, 4, 25) / 30.
    rewards = jnp.log(jnp.array([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]]))
    assert_close(reward_weights(rewards, temperature=1.0), [[0.125, 0.25, 0.625], [1 / 3] * 3])
    assert_close(reward_weights(rewards, temperature=0.5)[0], [1 / 30, 4 / 30, 25 / 30])


def test_reward_weights_of_large_rewards():
    rewards = jnp.array([[1e4, 1e4 - 1.0, -1e4]])
    assert_close(reward_weights(rewards, temperature=0.01), [[1, 0, 0]])


def test_best_of_group_weights():
    rewards = jnp.array([[0.1, 0.9, 0.4], [0.5, 0.5, 0.2], [0.3, 0.3, 0.3]])
    assert_close(best_of_group_weights(rewards), [[0, 1, 0], [0.5, 0.5, 0], [1 / 3] * 3])


def test_images_that_could_not_be_scored_weigh_nothing():
    rewards = jnp.array([[jnp.nan, 1.0, 1.0], [jnp.nan, jnp.nan, -3.0], [jnp.nan] * 3])
    valid = ~jnp.isnan(rewards)
    expected = [[0, 0.5, 0.5], [0, 0, 1], [0, 0, 0]]
    assert_close(best_of_group_weights(rewards, valid=valid), expected)
    assert_close(reward_weights(rewards, temperature=0.1, valid=valid), expected)


def test_preference_pairs():
    rewards = jnp.array([[0.1, 0.9, 0.4], [0.5, 0.5, 0.2], [0.3, 0.3, 0.3]])
    pairs = preference_pairs(rewards)
    assert pairs.winner.tolist()[:2] == [1, 0]
    assert pairs.loser.tolist()[:2] == [0, 2]
    assert pairs.mask.tolist() == [True, True, False]
    assert preference_pairs(rewards, tolerance=0.5).mask.tolist() == [True, False, False]


def test_preference_pairs_of_what_could_be_scored():
    rewards = jnp.array([[jnp.nan, 1.0, 2.0], [jnp.nan, jnp.nan, 1.0]])
    pairs = preference_pairs(rewards, valid=~jnp.isnan(rewards))
    assert (int(pairs.winner[0]), int(pairs.loser[0])) == (2, 1)
    assert pairs.mask.tolist() == [True, False]


# Margins (0.5 - 0.4) - (0.2 - 0.3) = 0.2, and (0.3 - 0.4) - (0.6 - 0.6) = -0.1.
WINNER, LOSER = jnp.array([0.2, 0.6]), jnp.array([0.5, 0.3])
REF_WINNER, REF_LOSER = jnp.array([0.3, 0.6]), jnp.array([0.4, 0.4])
BOTH = jnp.ones(2, bool)


def test_dpo():
    total, count, metrics = flow_dpo_loss(WINNER, LOSER, REF_WINNER, REF_LOSER, BOTH, beta=10.0)
    # log(1 + e⁻²) = 0.126928 and log(1 + e) = 1.313262.
    assert_close((total, count), (0.126928 + 1.313262, 2))
    assert_close(metrics["margin"], (0.1, 2))
    assert_close(metrics["accuracy"], (1, 2))


def test_dpo_gradient():
    gradients = jax.grad(lambda *errors: flow_dpo_loss(*errors, BOTH, beta=10.0)[0], argnums=range(4))(
        WINNER, LOSER, REF_WINNER, REF_LOSER
    )
    # β σ(-β m) raises the winner's error: 10 σ(-2) = 1.192029 and 10 σ(1) = 7.310586.
    assert_close(gradients[0], [1.192029, 7.310586])
    assert_close(gradients[1], [-1.192029, -7.310586])
    assert not gradients[2].any() and not gradients[3].any()


def test_dpo_starts_at_log_two():
    total, count, metrics = flow_dpo_loss(WINNER, LOSER, WINNER, LOSER, BOTH, beta=5000.0)
    assert_close(divide(total, count), np.log(2))
    assert divide(*metrics["accuracy"]) == 0


def test_dpo_of_extreme_margins_stays_finite():
    value, gradient = jax.value_and_grad(
        lambda winner: flow_dpo_loss(winner, LOSER, REF_WINNER, REF_LOSER, BOTH, beta=5000.0)[0]
    )(jnp.array([1e3, -1e3]))
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_ties_and_what_stands_outside_the_mask_have_no_effect():
    mask = jnp.array([True, False])

    def loss(*errors):
        total, count, _ = flow_dpo_loss(*errors, mask, beta=10.0)
        return divide(total, count)

    spoilt = [x.at[1].set(jnp.nan) for x in (WINNER, LOSER, REF_WINNER, REF_LOSER)]
    value, gradient = jax.value_and_grad(loss)(*spoilt)
    assert_close(value, 0.126928)
    assert_close(gradient, [1.192029, 0])


@pytest.mark.parametrize("weights", [None, jnp.array([1.0, jnp.nan, 2.0])])
def test_latents_outside_the_mask_have_no_effect(weights):
    mask = jnp.array([True, False, True])
    value, gradient = jax.value_and_grad(
        lambda *latents: divide(*flow_matching_loss(*latents, mask, weights=weights))
    )(*(x.at[1].set(jnp.nan) for x in (VELOCITY, CLEAN, NOISE)))
    # (2 + 5) / 2, or (2 + 2 · 5) / 3.
    assert_close(value, 3.5 if weights is None else 4.0)
    assert np.isfinite(gradient).all() and not gradient[1].any()


def test_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature is positive"):
        reward_weights(jnp.zeros((1, 2)), temperature=0.0)
