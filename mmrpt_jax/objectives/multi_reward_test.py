"""Row C3: sum then normalise, normalise then sum, and GDPO, worked out by hand."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.advantages import group_advantages, rloo_advantages
from mmrpt_jax.objectives.multi_reward import gdpo, normalise_then_sum, sum_then_normalise

WEIGHTS = jnp.array([1.0, 1.0])
# Two prompts, two answers, two binary rewards. The better answer of the second prompt earned both rewards.
REWARDS = jnp.array([[[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
H = 0.70710678


def assert_close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=atol)


def test_c3_summing_first_cannot_tell_one_reward_from_two():
    # Sums (1, 2) and (0, 2): any group of two becomes ±0.707.
    assert_close(sum_then_normalise(REWARDS, WEIGHTS), [[-H, H], [-H, H]])


def test_c3_normalising_first_can():
    # First prompt: reward 0 gives ±0.707, reward 1 is equal and gives 0. Second prompt: both give ±0.707.
    assert_close(normalise_then_sum(REWARDS, WEIGHTS), [[-H, H], [-2 * H, 2 * H]])


def test_c3_gdpo_normalises_the_sum_over_the_batch():
    # S = (-h, h, -2h, 2h) with h² = 1/2: mean 0, squares 1/2 + 1/2 + 2 + 2 = 5, sample std sqrt(5/3) =
    # 1.290994. 0.707107 / 1.290994 = 0.547723.
    assert_close(gdpo(REWARDS, WEIGHTS), [[-0.547723, 0.547723], [-1.095445, 1.095445]])


def test_c3_weights():
    weights = jnp.array([3.0, 0.5])
    # Summed: (0.5, 3.5) and (0, 3.5), baselines 2 and 1.75.
    centre = functools.partial(group_advantages, scale="none")
    assert_close(sum_then_normalise(REWARDS, weights, advantage_fn=centre), [[-1.5, 1.5], [-1.75, 1.75]])
    # 3 · 0.707 + 0 and 3 · 0.707 + 0.5 · 0.707.
    assert_close(normalise_then_sum(REWARDS, weights), [[-3 * H, 3 * H], [-3.5 * H, 3.5 * H]])


def test_c3_advantage_fn_may_be_leave_one_out():
    # With two answers, leave-one-out is the difference to the other: sums (1, 2) and (0, 2).
    assert_close(sum_then_normalise(REWARDS, WEIGHTS, advantage_fn=rloo_advantages), [[-1, 1], [-2, 2]])


def test_c3_rewards_that_do_not_apply():
    rewards = jnp.array([[[1.0, jnp.nan], [3.0, 4.0], [jnp.nan, 2.0], [jnp.nan, jnp.nan]]])
    valid = ~jnp.isnan(rewards)
    centre = functools.partial(group_advantages, scale="none")
    # Sums of what applies: 1, 7, 2; the last answer has nothing. Mean 10/3.
    summed = sum_then_normalise(rewards, WEIGHTS, advantage_fn=centre, valid=valid)
    assert_close(summed, [[-7 / 3, 11 / 3, -4 / 3, 0.0]])
    # Reward 0 over (1, 3): ∓1. Reward 1 over (4, 2): ±1. Sum: -1, 1 + 1, -1, 0.
    separate = normalise_then_sum(rewards, WEIGHTS, advantage_fn=centre, valid=valid)
    assert_close(separate, [[-1.0, 2.0, -1.0, 0.0]])
    # Of (-1, 2, -1): mean 0, sample std sqrt(6 / 2) = 1.732051; the last answer is not in the batch.
    normalised = gdpo(rewards, WEIGHTS, advantage_fn=centre, valid=valid)
    assert_close(normalised, [[-0.577350, 1.154701, -0.577350, 0.0]])


def test_c3_gdpo_of_equal_rewards_is_zero():
    np.testing.assert_array_equal(gdpo(jnp.ones((2, 3, 2)), WEIGHTS), np.zeros((2, 3)))


@pytest.mark.parametrize(
    "combine, expected",
    [(sum_then_normalise, (0.974, 0.053, 0.178)), (normalise_then_sum, (0.575, 0.557, 0.558))],
)
def test_a_binary_reward_drowns_the_others_in_a_sum(combine, expected):
    """How far advantages follow each reward, centred by group: a rule, a similarity and a probability.

    To first order the sum gives each its share of the deviation, (0.5, 0.03, 0.1) / 0.511. Normalised first, they
    count alike: 1 / √3, but for the groups in which the rule holds for all or none.
    """
    rng = np.random.default_rng(0)
    shape = (50_000, 8)
    rewards = np.stack(
        [rng.random(shape) < 0.5, rng.normal(0.6, 0.03, shape), rng.normal(0.5, 0.1, shape)], -1
    )
    rewards = rewards.astype(np.float32)
    advantages = np.asarray(combine(jnp.asarray(rewards), jnp.ones(3))).reshape(-1)
    centred = (rewards - rewards.mean(1, keepdims=True)).reshape(-1, 3)
    # Standard error 1 / √400,000.
    assert_close([np.corrcoef(advantages, column)[0, 1] for column in centred.T], expected, atol=0.006)
