"""Noisy steps of a flow: by hand, as densities, and by the distribution that they lead to."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.flow_schedule import constant_level, flow_sde_level, timesteps
from mmrpt_jax.objectives.flow_transition import flow_transition, sample_transition, transition_logprobs

MEAN, STD = 0.5, 0.3  # of the data in one dimension
SHAPE = (64, 16, 32)  # images, tokens and channels, all of them independent samples of it


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def random_step(seed=0):
    """Latents, velocity and times of three images, at noise levels from 0.2 to 1."""
    rng = np.random.default_rng(seed)
    latents, velocity = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
    times = np.array([1.0, 0.6, 0.15], np.float32)
    return latents, velocity, times, times - np.array([0.1, 0.05, 0.15], np.float32), np.array([0.2, 1, 0.5])


def wide(*arrays):
    return [x[:, None, None].astype(np.float64) for x in arrays]


def test_one_step_by_hand():
    mean, std = flow_transition(jnp.full((1, 1, 1), 2.0), jnp.full((1, 1, 1), 3.0), 0.5, 0.25, 0.8)
    # s² / (2 t) = 0.64. 2 (1 - 0.64 · 0.25) - 3 (1 + 0.64 · 0.5) 0.25 = 1.68 - 0.99; 0.8 · √0.25.
    assert_close(mean, [[[0.69]]])
    assert_close(std, [0.4])


def test_mean_is_flow_grpos():
    latents, velocity, times, next_times, level = random_step()
    t, dt, s = wide(times, next_times - times, level)
    expected = latents * (1 + s**2 / (2 * t) * dt) + velocity * (1 + s**2 * (1 - t) / (2 * t)) * dt
    assert_close(flow_transition(latents, velocity, times, next_times, level).mean, expected)


def test_mean_is_dance_grpos():
    # There the reverse SDE, dx = (v - ½ η² score) dt + η dw, with the score of x_t = (1 - t) x_0 + t ε as that of a
    # normal around the predicted data: -(x - (1 - t) x_0) / t².
    latents, velocity, times, next_times, _ = random_step()
    t, dt = wide(times, next_times - times)
    score = -(latents - (1 - t) * (latents - t * velocity)) / t**2
    expected = latents + dt * velocity - 0.5 * 0.7**2 * score * dt
    level = constant_level(times, level=0.7)
    mean, std = flow_transition(latents, velocity, times, next_times, level)
    assert_close(mean, expected)
    assert_close(std, 0.7 * np.sqrt(np.array([0.1, 0.05, 0.15])))


def test_without_noise_it_is_eulers_step():
    latents, velocity, times, next_times, _ = (jnp.asarray(x, jnp.float32) for x in random_step())
    times, next_times = times.at[2].set(0.0), next_times.at[2].set(0.0)  # the last is padding
    mean, std = flow_transition(latents, velocity, times, next_times, jnp.zeros(3))
    np.testing.assert_array_equal(mean, latents - (times - next_times)[:, None, None] * velocity)
    np.testing.assert_array_equal(std, 0)
    np.testing.assert_array_equal(sample_transition(jax.random.key(0), mean, std), mean)

    def logprob(velocity):
        mean, std = flow_transition(latents, velocity, times, next_times, jnp.zeros(3))
        return jnp.sum(mean), jnp.sum(transition_logprobs(mean + 1, mean, std))

    # d mean / d v = dt for each of eight dimensions. A step without noise has no density, hence no gradient.
    of_mean, of_density = jax.jacrev(logprob)(velocity)
    assert_close(of_mean, np.broadcast_to((next_times - times)[:, None, None], velocity.shape))
    np.testing.assert_array_equal(of_density, 0)


def test_draws():
    mean = jnp.broadcast_to(jnp.array([1.0, -2.0])[:, None, None], (2, 100, 100))
    drawn = sample_transition(jax.random.key(1), mean, jnp.array([0.5, 2.0]))
    # 10,000 draws each: standard errors of 1 % of the deviation for the mean, 0.7 % for the deviation.
    assert_close(jnp.mean(drawn, (1, 2)), [1.0, -2.0], atol=0.06)
    assert_close(jnp.std(drawn, (1, 2)), [0.5, 2.0], rtol=0.03)


@pytest.mark.parametrize("std", [0.05, 0.7, 3.0])
def test_density_integrates_to_one(std):
    grid = np.linspace(-8, 8, 2001) * std + 0.4
    logprobs = transition_logprobs(
        jnp.asarray(grid, jnp.float32)[:, None, None], jnp.full((2001, 1, 1), 0.4), std
    )
    assert_close(np.trapezoid(np.exp(np.asarray(logprobs, np.float64)), grid), 1.0, atol=1e-5)


def test_density_is_that_of_independent_normals():
    rng = np.random.default_rng(0)
    drawn, mean = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    std = np.linspace(0.3, 2.0, 5).astype(np.float32)
    expected = jax.scipy.stats.norm.logpdf(drawn, mean, std[:, None, None]).reshape(5, 12)
    assert_close(transition_logprobs(drawn, mean, std, reduce="sum"), np.sum(expected, -1))
    assert_close(transition_logprobs(drawn, mean, std, reduce="mean"), np.mean(expected, -1))
    with pytest.raises(ValueError, match="reduce is one of"):
        transition_logprobs(drawn, mean, std, reduce="max")


def test_gradient_of_the_density():
    mean = jnp.array([[[1.0, 2.0]]])
    drawn = jnp.array([[[1.5, 1.0]]])

    def total(mean, drawn):
        return transition_logprobs(drawn, mean, jnp.array([0.5]))[0]

    # (x' - mean) / std² / 2 dimensions: 0.5 · 4 / 2 and -1 · 4 / 2; what was drawn is data.
    of_mean, of_drawn = jax.grad(total, argnums=(0, 1))(mean, drawn)
    assert_close(of_mean, [[[1.0, -2.0]]])
    np.testing.assert_array_equal(of_drawn, 0)


@pytest.mark.parametrize("junk", [jnp.nan, jnp.inf])
def test_what_stands_outside_the_mask_has_no_effect(junk):
    latents, velocity, times, next_times, level = (jnp.asarray(x, jnp.float32) for x in random_step())
    mask = jnp.array([True, False, True])

    def total(velocity, latents, drawn):
        mean, std = flow_transition(latents, velocity, times, next_times, level)
        return jnp.sum(transition_logprobs(drawn, mean, std, mask))

    clean = jax.value_and_grad(total)(velocity, latents, latents)
    spoilt = [x.at[1].set(junk) for x in (velocity, latents, latents)]
    value, gradient = jax.value_and_grad(total)(*spoilt)
    assert value == clean[0]
    np.testing.assert_array_equal(gradient, clean[1])
    assert np.isfinite(gradient).all() and not gradient[1].any()


def test_a_deviation_that_is_nan_is_seen():
    assert np.isnan(transition_logprobs(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), jnp.array([jnp.nan])))


def line_of(t):
    """E[ε - x_0 | x_t] = slope x_t + offset for normal data, of whose x_t mean and variance are known."""
    variance = (1 - t) ** 2 * STD**2 + t**2
    slope = (t - (1 - t) * STD**2) / variance  # Cov(ε - x_0, x_t) / Var(x_t)
    return slope, -MEAN - slope * (1 - t) * MEAN


@jax.jit
def sampled_std(key, times, levels):
    def step(latents, now):
        t, next_t, level, key = now
        slope, offset = line_of(t)
        mean, std = flow_transition(latents, slope * latents + offset, t, next_t, level)
        return sample_transition(key, mean, std), None

    start, keys = jax.random.split(key)
    steps = (times[:-1], times[1:], levels, jax.random.split(keys, len(levels)))
    return jnp.std(jax.lax.scan(step, jax.random.normal(start, SHAPE), steps)[0])


def exact_std(*, steps, shift, kind, scale):
    """The same by hand: with this field every step is linear, so a variance follows from the one before it."""
    times = np.linspace(1, 0, steps + 1)
    times = shift * times / (1 + (shift - 1) * times)
    variance = 1.0
    for t, next_t in itertools.pairwise(times):
        s = scale * np.sqrt(t / (1 - (times[1] if t == 1 else t))) if kind == "flow_sde" else scale
        dt = next_t - t
        factor = 1 + s**2 / (2 * t) * dt + line_of(t)[0] * (1 + s**2 * (1 - t) / (2 * t)) * dt
        variance = factor**2 * variance + s**2 * -dt
    return np.sqrt(variance)


# Deviation of the samples; that of the data is 0.3. Coarse grids miss it, each in its own way.
@pytest.mark.parametrize(
    "kind, scale, steps, shift, expected",
    [
        ("constant", 0.0, 10, 1.0, 0.247),
        ("constant", 0.0, 10, 3.0, 0.185),
        ("constant", 0.0, 400, 1.0, 0.298),
        ("flow_sde", 0.7, 10, 1.0, 0.282),
        ("flow_sde", 0.7, 10, 3.0, 0.255),
        ("flow_sde", 0.7, 400, 1.0, 0.3005),
        ("flow_sde", 1.3, 10, 3.0, 0.376),
        ("constant", 0.7, 10, 3.0, 0.351),
    ],
)
def test_samples_of_a_known_field(kind, scale, steps, shift, expected):
    exact = exact_std(kind=kind, scale=scale, steps=steps, shift=shift)
    assert_close(exact, expected, atol=1e-3)
    times = timesteps(steps=steps, shift=shift)
    if kind == "flow_sde":
        levels = flow_sde_level(times[:-1], second_time=times[1], scale=scale)
    else:
        levels = constant_level(times[:-1], level=scale)
    sampled = sampled_std(jax.random.key(2), times, levels)
    # The relative standard error of a deviation is 1 / √(2 n).
    assert_close(sampled, exact, rtol=4 / np.sqrt(2 * np.prod(SHAPE)))
