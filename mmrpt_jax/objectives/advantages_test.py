"""Rows C1, C2, C17, C18 and C22: group statistics, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.advantages import (
    group_advantages,
    rloo_advantages,
    segment_advantages,
    zero_variance_groups,
)


def assert_close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=atol)


def test_c1_sample_and_population_std():
    rewards = jnp.array([[0.0, 1.0, 2.0, 5.0]])
    # mean 2, centred (-2, -1, 0, 3), squares sum to 14.
    # ddof=1: std = sqrt(14 / 3) = 2.160247; ddof=0: std = sqrt(14 / 4) = 1.870829.
    assert_close(group_advantages(rewards, ddof=1, eps=0.0), [[-0.925820, -0.462910, 0.0, 1.388730]])
    assert_close(group_advantages(rewards, ddof=0, eps=0.0), [[-1.069045, -0.534522, 0.0, 1.603567]])


def test_c1_eps_is_added_to_the_std():
    # mean 1/2, sample std sqrt(1/2) = 0.707107; 0.5 / (0.707107 + 0.292893) = 0.5.
    assert_close(group_advantages(jnp.array([0.0, 1.0]), eps=0.292893), [-0.5, 0.5])


def test_c1_scale_of_batch_and_none():
    rewards = jnp.array([[0.0, 2.0], [4.0, 6.0]])
    # Group means 1 and 5. All four: mean 3, squares 9 + 1 + 1 + 9 = 20, sample std sqrt(20/3) = 2.581989.
    assert_close(group_advantages(rewards, scale="none"), [[-1.0, 1.0], [-1.0, 1.0]])
    assert_close(group_advantages(rewards, scale="batch", eps=0.0), [[-0.387298, 0.387298]] * 2)


def test_c1_noise_below_min_std_is_not_amplified():
    # Sample stds: 0.0007071 in the first group, 0.7071068 in the second.
    rewards = jnp.array([[0.500, 0.501], [0.0, 1.0]])
    assert_close(group_advantages(rewards, min_std=1e-2), [[0.0, 0.0], [-0.707107, 0.707107]])
    assert_close(group_advantages(rewards, min_std=0.0, eps=0.0), [[-0.707107, 0.707107]] * 2, atol=1e-3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_c1_a_group_of_one_has_no_advantage(scale, ddof):
    # One reward in the whole batch: the sample std would divide by zero.
    advantages = group_advantages(jnp.array([[3.0]]), scale=scale, ddof=ddof, min_std=0.0, eps=0.0)
    np.testing.assert_array_equal(advantages, [[0.0]])
    np.testing.assert_array_equal(rloo_advantages(jnp.array([[3.0]])), [[0.0]])


def test_c2_a_group_of_two_has_the_same_advantages_whatever_its_rewards():
    # Centred (-d/2, d/2), sample std d/sqrt(2): the quotient is 1/sqrt(2).
    rewards = jnp.array([[0.0, 1.0], [0.3, 0.4], [-7.0, 90.0]])
    assert_close(group_advantages(rewards, eps=0.0), [[-0.707107, 0.707107]] * 3)


def test_c17_a_truncated_completion_stays_in_the_baseline():
    # The truncated second answer earned 0 and pulls the mean to 1/2; the first answer's advantage is 1 - 1/2.
    # Left out of the baseline, the first answer would have been alone, with advantage 0.
    rewards = jnp.array([1.0, 0.0])
    assert_close(group_advantages(rewards, scale="none")[0], 0.5)
    unscored = jnp.array([True, False])
    assert_close(group_advantages(rewards, scale="none", valid=unscored), [0.0, 0.0])


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, -3.3, 1e3 / 7])
def test_c18_equal_rewards_have_advantage_zero(reward):
    # 0.1 and 1000/7 have no exact float, so their mean of seven need not be exact either.
    rewards = jnp.full((2, 7), reward)
    np.testing.assert_array_equal(group_advantages(rewards), np.zeros((2, 7)))
    np.testing.assert_array_equal(zero_variance_groups(rewards), [True, True])


def test_c18_zero_variance_groups():
    rewards = jnp.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.001], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(zero_variance_groups(rewards), [True, False, False])
    np.testing.assert_array_equal(zero_variance_groups(rewards, tolerance=0.01), [True, True, False])
    # Without the middle completion, the last group is (0, 0); a group with one or none says nothing either.
    valid = jnp.array([[False, False, False], [False, False, True], [True, False, True]])
    np.testing.assert_array_equal(zero_variance_groups(rewards, valid=valid), [True, True, True])


def test_rloo_compares_with_the_others():
    # Others' means: (1 + 5) / 2 = 3, (0 + 5) / 2 = 2.5, (0 + 1) / 2 = 0.5.
    assert_close(rloo_advantages(jnp.array([0.0, 1.0, 5.0])), [-3.0, -1.5, 4.5])


@pytest.mark.parametrize("unscored", [jnp.nan, jnp.inf, 100.0])
def test_unscored_completions_count_nowhere(unscored):
    rewards = jnp.array([[0.0, unscored, 4.0, 2.0]])
    valid = jnp.array([[True, False, True, True]])
    # Of (0, 4, 2): mean 2, sample std 2; the others' means are 3, 1 and 2.
    assert_close(group_advantages(rewards, valid=valid), [[-1.0, 0.0, 1.0, 0.0]])
    assert_close(group_advantages(rewards, valid=valid, scale="batch"), [[-1.0, 0.0, 1.0, 0.0]])
    assert_close(group_advantages(rewards, valid=valid, scale="none"), [[-2.0, 0.0, 2.0, 0.0]])
    assert_close(rloo_advantages(rewards, valid=valid), [[-3.0, 0.0, 3.0, 0.0]])


def test_a_group_without_a_scored_completion_is_zero():
    rewards = jnp.full((1, 3), jnp.nan)
    valid = jnp.zeros((1, 3), bool)
    for advantages in (group_advantages(rewards, valid=valid), rloo_advantages(rewards, valid=valid)):
        np.testing.assert_array_equal(advantages, np.zeros((1, 3)))


def test_c22_shuffled_groups_of_unequal_size():
    rewards = jnp.array([4.0, 1.0, 0.0, 3.0, 2.0, 9.0])
    group_ids = jnp.array([1, 0, 1, 0, 1, 2])
    # Group 0 is (1, 3): ±1 over sqrt(2). Group 1 is (4, 0, 2): (2, -2, 0) over 2. Group 2 is alone.
    expected = [1.0, -0.707107, -1.0, 0.707107, 0.0, 0.0]
    assert_close(segment_advantages(rewards, group_ids, num_groups=3), expected)


@pytest.mark.parametrize("padding", [-1, 3, 99])
def test_c22_ids_out_of_range_are_padding(padding):
    rewards = jnp.array([1.0, jnp.nan, 3.0])
    advantages = segment_advantages(rewards, jnp.array([0, padding, 0]), num_groups=3, scale="batch")
    # Rewards 1 and 3: centred ±1, sample std sqrt(2).
    assert_close(advantages, [-0.707107, 0.0, 0.707107])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_c22_order_does_not_matter(scale):
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(5, 4)).astype(np.float32)
    order = rng.permutation(20)
    shuffled = segment_advantages(
        jnp.asarray(rewards.reshape(-1)[order]), jnp.asarray(order // 4), num_groups=5, scale=scale
    )
    # NumPy's own mean and std over the unshuffled rectangle.
    centred = rewards - rewards.mean(-1, keepdims=True)
    std = {"group": rewards.std(-1, ddof=1, keepdims=True), "batch": rewards.std(ddof=1), "none": 1.0}[scale]
    assert_close(shuffled, (centred / std).reshape(-1)[order])


def test_bad_arguments():
    with pytest.raises(ValueError, match="scale is one of"):
        group_advantages(jnp.ones(2), scale="std")
    with pytest.raises(ValueError, match="ddof is 0"):
        group_advantages(jnp.ones(2), ddof=2)
    with pytest.raises(AssertionError):
        group_advantages(jnp.ones(2), valid=jnp.ones((3,), bool))
    with pytest.raises(AssertionError):
        group_advantages(jnp.ones(2, jnp.int32))
