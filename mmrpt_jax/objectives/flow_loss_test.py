"""The policy loss of noisy steps, worked out by hand, and its first update in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.advantages import group_advantages, zero_variance_groups
from mmrpt_jax.objectives.flow_loss import flow_policy_loss
from mmrpt_jax.objectives.flow_schedule import flow_sde_level, timesteps
from mmrpt_jax.objectives.flow_transition import flow_transition, sample_transition, transition_logprobs
from mmrpt_jax.objectives.reductions import divide

# Images of two and of three noisy steps.
RATIO = np.array([[1.5, 1.0, 9.0], [1.0, 0.5, 1.25]], np.float32)
MASK = jnp.array([[True, True, False], [True, True, True]])
LOGPROBS = jnp.full((2, 3), 1.2)  # a density, so of either sign
BEHAVIOUR = LOGPROBS - np.log(RATIO)
ADVANTAGES = jnp.array([2.0, -1.0])
KL = jnp.array([[1.0, 2.0, jnp.nan], [3.0, 4.0, 5.0]])


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def test_by_hand():
    total, count, metrics = flow_policy_loss(
        LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, clip_low=0.2, clip_high=0.3, kl=KL, kl_coefficient=0.1
    )
    # -min(3, 2.6), -2; 1, -min(-0.5, -0.8), 1.25; and 0.1 · 15.
    assert_close((total, count), (-2.6 - 2.0 + 1.0 + 0.8 + 1.25 + 1.5, 5))
    # Clipped: 1.5 with A > 0 and 0.5 with A < 0.
    expected = {"ratio": (5.25, 5), "clip_fraction": (2, 5), "kl": (15, 5)}
    assert metrics.keys() == expected.keys()
    for name, pair in expected.items():
        assert_close(metrics[name], pair)


def test_kl_is_measured_without_a_coefficient():
    total, _, metrics = flow_policy_loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK, kl=KL)
    assert_close(total, -2 * 2.0 + 3 * 1.0)
    assert_close(metrics["kl"], (15, 5))


def test_gradient_of_the_kl_flows():
    gradient = jax.grad(
        lambda kl: flow_policy_loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK, kl=kl, kl_coefficient=0.1)[0]
    )(KL)
    assert_close(gradient, 0.1 * np.asarray(MASK))


def test_advantages_are_clamped():
    args = (LOGPROBS, LOGPROBS, jnp.array([7.0, -50.0]), MASK)
    assert_close(flow_policy_loss(*args)[0], -2 * 5.0 + 3 * 5.0)
    assert_close(flow_policy_loss(*args, max_advantage=10.0)[0], -2 * 7.0 + 3 * 10.0)


def test_default_clip_range_is_that_of_mean_log_densities():
    _, _, metrics = flow_policy_loss(LOGPROBS + 2e-4, LOGPROBS, jnp.array([1.0, -1.0]), MASK)
    # 1.0002 is above 1.0001; clipped where A > 0 only, on two of five steps.
    assert_close(metrics["clip_fraction"], (2, 5))


def test_groups_that_teach_nothing_are_left_out_by_the_mask():
    rewards = jnp.array([[1.0, 1.0], [0.0, 1.0]])
    logprobs, mask = jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3), bool)
    informative = mask & ~zero_variance_groups(rewards)[..., None, None]
    _, count, _ = flow_policy_loss(logprobs, logprobs, group_advantages(rewards), informative)
    assert count == 6


def rollout(parameter, key):
    """Four images of 2 x 3 dimensions, three noisy steps with the field v = parameter · x."""
    times = timesteps(steps=4, shift=3.0)
    levels = flow_sde_level(times[:3], second_time=times[1])
    start, *keys = jax.random.split(key, 4)
    latents = [jax.random.normal(start, (4, 2, 3))]
    for i in range(3):
        step = flow_transition(latents[-1], parameter * latents[-1], times[i], times[i + 1], levels[i])
        latents.append(sample_transition(keys[i], *step))
    return jnp.stack(latents, 1), times, levels


def logprobs_of(parameter, latents, times, levels):
    before = latents[:, :-1]
    return transition_logprobs(
        latents[:, 1:], *flow_transition(before, parameter * before, times[:3], times[1:4], levels)
    )


def test_first_update():
    parameter = jnp.float32(-0.4)
    latents, times, levels = rollout(parameter, jax.random.key(0))
    behaviour = jax.jit(logprobs_of)(parameter, latents, times, levels)
    advantages = jnp.array([1.5, -0.5, 0.3, -1.3])

    @jax.jit
    def loss(parameter):
        logprobs = logprobs_of(parameter, latents, times, levels)
        total, count, metrics = flow_policy_loss(logprobs, behaviour, advantages, jnp.ones((4, 3), bool))
        return divide(total, count), metrics

    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(parameter)
    assert float(divide(*metrics["ratio"])) == 1.0
    assert float(divide(*metrics["clip_fraction"])) == 0.0
    assert_close(value, -np.mean(advantages))
    # REINFORCE by hand: -A d log p / d parameter = -A (x' - mean) / std² · d mean / d parameter, and the mean is
    # x (1 + s² / (2 t) dt) + parameter x (1 + s² (1 - t) / (2 t)) dt.
    x, after = np.asarray(latents[:, :-1], np.float64), np.asarray(latents[:, 1:], np.float64)
    t, next_t, s = (np.asarray(v, np.float64)[:, None, None] for v in (times[:3], times[1:4], levels))
    dt = next_t - t
    slope = x * (1 + s**2 * (1 - t) / (2 * t)) * dt
    mean = x * (1 + s**2 / (2 * t) * dt) + float(parameter) * slope
    score = np.mean((after - mean) / (s**2 * -dt) * slope, axis=(2, 3))
    assert_close(gradient, np.mean(-np.asarray(advantages)[:, None] * score), rtol=1e-4)


def test_what_stands_outside_the_mask_has_no_effect():
    def total(logprobs, behaviour, advantages, kl):
        return flow_policy_loss(logprobs, behaviour, advantages, mask, kl=kl, kl_coefficient=0.1)[0]

    mask = jnp.array([[True, True, False], [False, False, False]])
    kl = jnp.where(mask, KL, 0)
    clean = jax.value_and_grad(total)(LOGPROBS, BEHAVIOUR, ADVANTAGES, kl)
    spoilt = [jnp.where(mask, x, jnp.nan) for x in (LOGPROBS, BEHAVIOUR, kl)]
    spoilt.insert(2, ADVANTAGES.at[1].set(jnp.nan))
    value, gradient = jax.value_and_grad(total)(*spoilt)
    assert value == clean[0]
    np.testing.assert_array_equal(gradient, clean[1])
    assert not gradient[~mask].any()


def test_an_empty_batch_has_loss_zero():
    def loss(logprobs):
        total, count, _ = flow_policy_loss(logprobs, BEHAVIOUR, ADVANTAGES, jnp.zeros((2, 3), bool))
        return divide(total, count)

    value, gradient = jax.value_and_grad(loss)(LOGPROBS)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="pass kl"):
        flow_policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, kl_coefficient=0.1)
    with pytest.raises(AssertionError):
        flow_policy_loss(LOGPROBS, BEHAVIOUR, jnp.ones((2, 3)), MASK)
