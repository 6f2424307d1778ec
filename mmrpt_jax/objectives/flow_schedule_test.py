"""Times, noise levels and the straight line between data and noise, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.flow_schedule import (
    constant_level,
    flow_sde_level,
    interpolate,
    logit_normal_times,
    predict_clean,
    predict_noise,
    shift_times,
    timesteps,
    velocity_target,
)

# Two images of one token and two channels.
CLEAN = jnp.array([[[1.0, -2.0]], [[0.0, 4.0]]])
NOISE = jnp.array([[[3.0, 2.0]], [[-1.0, 0.5]]])
TIMES = jnp.array([0.25, 1.0])


def assert_close(actual, expected, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def test_timesteps():
    assert_close(timesteps(steps=4), [1.0, 0.75, 0.5, 0.25, 0.0])
    # 3 · 0.75 / (1 + 2 · 0.75) = 2.25 / 2.5, 3 · 0.5 / 2 and 3 · 0.25 / 1.5.
    assert_close(timesteps(steps=4, shift=3.0), [1.0, 0.9, 0.75, 0.5, 0.0])


@pytest.mark.parametrize("shift", [0.3, 1.0, 1.15, 3.0, 7.3])
def test_both_ends_are_exact(shift):
    for times in (timesteps(steps=7, shift=shift), shift_times(jnp.array([1.0, 0.0]), shift=shift)):
        assert times[0] == 1.0 and times[-1] == 0.0
        assert times.dtype == jnp.float32


def test_training_times_are_shifted_logit_normal():
    times = logit_normal_times(jax.random.key(0), (200, 100), shift=3.0)
    # The shift keeps the order, hence the quantiles: sigmoid(0) = 0.5 goes to 0.75 and sigmoid(1) = 0.731059 to
    # 2.193176 / 2.462117 = 0.890768; below them lie a half and Φ(1) = 0.841345. Standard error 0.0035.
    assert_close(jnp.mean(times < 0.75), 0.5, atol=0.014)
    assert_close(jnp.mean(times < 0.890768), 0.841345, atol=0.014)
    assert times.min() > 0 and times.max() < 1


def test_line_between_data_and_noise():
    noised = interpolate(CLEAN, NOISE, TIMES)
    # 0.75 x_0 + 0.25 ε; at t = 1 the noise itself.
    assert_close(noised, [[[1.5, -1.0]], [[-1.0, 0.5]]])
    velocity = velocity_target(CLEAN, NOISE)
    assert_close(velocity, [[[2.0, 4.0]], [[-1.0, -3.5]]])
    assert_close(predict_clean(noised, velocity, TIMES), CLEAN)
    assert_close(predict_noise(noised, velocity, TIMES), NOISE)


def test_times_broadcast_over_leading_dimensions():
    latents = jnp.stack([CLEAN] * 3)
    expected = np.asarray(latents) * 0.75
    assert_close(interpolate(latents, jnp.zeros_like(latents), 0.25), expected)
    # One time per image of the last leading dimension: 0.75 and 0 times the data.
    assert_close(
        interpolate(latents, jnp.zeros_like(latents), TIMES), expected * np.array([1, 0])[:, None, None]
    )
    with pytest.raises(AssertionError):
        interpolate(CLEAN, NOISE, jnp.zeros((3, 2)))


def test_flow_sde_level():
    times = timesteps(steps=4)[:-1]
    level = flow_sde_level(times, second_time=times[1], scale=0.7)
    # 0.7 √(t / (1 - t)): √(1 / 0.25) with the second time in 1 - t, √3, 1 and √(1 / 3).
    assert_close(level, [1.4, 1.212436, 0.7, 0.404145])
    assert flow_sde_level(jnp.zeros(1), second_time=0.75) == 0


def test_constant_level():
    np.testing.assert_array_equal(constant_level(TIMES, level=0.5), np.full(2, 0.5, np.float32))


def test_half_precision_latents_give_float32():
    clean, noise = CLEAN.astype(jnp.bfloat16), NOISE.astype(jnp.bfloat16)
    assert interpolate(clean, noise, 0.5).dtype == jnp.float32
    assert velocity_target(clean, noise).dtype == jnp.float32
    assert predict_clean(clean, noise, TIMES).dtype == jnp.float32


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one step"):
        timesteps(steps=0)
    with pytest.raises(ValueError, match="shift is positive"):
        timesteps(steps=2, shift=0.0)
    with pytest.raises(ValueError, match="shift is positive"):
        shift_times(TIMES, shift=-1.0)
