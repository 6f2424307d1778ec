"""The KL of noisy steps: by numerical integration, by the published formula, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.flow_kl import flow_kl, transition_kl
from mmrpt_jax.objectives.flow_transition import flow_transition

KINDS = ("exact", "mean_only", "velocity")
TIMES = np.array([1.0, 0.6, 0.15], np.float32)
NEXT = np.array([0.9, 0.55, 0.0], np.float32)
LEVEL = np.array([1.4, 0.8, 0.3], np.float32)
VELOCITY, REF = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype(np.float32)


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


@pytest.mark.parametrize("mean, ref_mean, std", [(0.3, 0.5, 0.2), (-1.0, 1.0, 0.7), (0.0, 0.01, 0.05)])
def test_exact_kl_is_the_integral(mean, ref_mean, std):
    grid = np.linspace(mean - 10 * std, mean + 10 * std, 20001)

    def log_density(centre):
        return -0.5 * ((grid - centre) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))

    p, q = log_density(mean), log_density(ref_mean)
    expected = np.trapezoid(np.exp(p) * (p - q), grid)
    actual = transition_kl(jnp.full((1, 1, 1), mean), jnp.full((1, 1, 1), ref_mean), jnp.array([std]))
    assert_close(actual, [expected])


@pytest.mark.parametrize("reduce, over", [("sum", np.sum), ("mean", np.mean)])
def test_exact_kl_is_the_published_formula(reduce, over):
    dt, t, s = (x.astype(np.float64) for x in (TIMES - NEXT, TIMES, LEVEL))
    squared = over((VELOCITY - REF).astype(np.float64) ** 2, axis=(1, 2))
    expected = dt / 2 * (s * (1 - t) / (2 * t) + 1 / s) ** 2 * squared
    actual = flow_kl(VELOCITY, REF, TIMES, NEXT, LEVEL, kind="exact", reduce=reduce)
    assert_close(actual, expected)
    # And it is that of the transitions themselves.
    latents = np.ones_like(VELOCITY)
    mean, std = flow_transition(latents, VELOCITY, TIMES, NEXT, LEVEL)
    ref_mean, _ = flow_transition(latents, REF, TIMES, NEXT, LEVEL)
    assert_close(transition_kl(mean, ref_mean, std, reduce=reduce), expected, rtol=1e-4)
    # Without dt in the variance, as Flow-GRPO has it.
    assert_close(flow_kl(VELOCITY, REF, TIMES, NEXT, LEVEL, kind="mean_only", reduce=reduce), dt * expected)
    assert_close(flow_kl(VELOCITY, REF, TIMES, NEXT, LEVEL, kind="velocity", reduce=reduce), squared)


def test_by_hand():
    velocity, ref = jnp.array([[[3.0, 1.0]]]), jnp.array([[[1.0, 1.0]]])
    # |Δv|² = 4 and 0. Δmean = (1 + 0.64 · 0.5) · -0.25 · 2 = -0.66; std² = 0.16, s² = 0.64.
    for kind, expected in (("exact", 0.4356 / 0.32), ("mean_only", 0.4356 / 1.28), ("velocity", 4.0)):
        assert_close(flow_kl(velocity, ref, 0.5, 0.25, 0.8, kind=kind, reduce="sum"), [expected])
        assert_close(flow_kl(velocity, ref, 0.5, 0.25, 0.8, kind=kind, reduce="mean"), [expected / 2])


def test_gradient_flows_through_the_policy_only():
    velocity, ref = jnp.array([[[3.0, 1.0]]]), jnp.array([[[1.0, 1.0]]])
    of_velocity, of_ref = jax.grad(
        lambda v, r: flow_kl(v, r, 0.5, 0.25, 0.8, kind="exact", reduce="sum")[0], argnums=(0, 1)
    )(velocity, ref)
    # ½ · 0.25 · (0.8 · 0.5 + 1.25)² · 2 Δv = 0.6806250 Δv.
    assert_close(of_velocity, [[[1.36125, 0.0]]])
    np.testing.assert_array_equal(of_ref, 0)


def test_steps_without_noise_have_only_the_velocity_kind():
    level = jnp.array([1.4, 0.0, 0.3])
    for kind in KINDS:
        value, gradient = jax.value_and_grad(
            lambda v, kind=kind: flow_kl(v, REF, TIMES, NEXT, level, kind=kind)[1]
        )(VELOCITY)
        assert np.isfinite(gradient).all()
        assert (value > 0) == gradient[1].any() == (kind == "velocity")


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_outside_the_mask_has_no_effect(kind):
    mask = jnp.array([True, False, True])

    def total(velocity, *rest):
        return jnp.sum(flow_kl(velocity, *rest, mask, kind=kind))

    args = [jnp.asarray(x) for x in (VELOCITY, REF, TIMES, NEXT, LEVEL)]
    clean = jax.value_and_grad(total)(*args)
    value, gradient = jax.value_and_grad(total)(*(x.at[1].set(jnp.nan) for x in args))
    assert value == clean[0] > 0
    np.testing.assert_array_equal(gradient, clean[1])
    assert not gradient[1].any()


def test_transition_kl_outside_the_mask():
    mask = jnp.array([True, False, True])

    def total(mean):
        return jnp.sum(transition_kl(mean, REF, jnp.array([1.0, jnp.nan, 2.0]), mask))

    gradient = jax.grad(total)(jnp.asarray(VELOCITY).at[1].set(jnp.nan))
    # (mean - ref_mean) / std² over eight dimensions.
    assert_close(gradient, (VELOCITY - REF) / np.array([1.0, np.inf, 4.0])[:, None, None] / 8)


def test_bad_arguments():
    with pytest.raises(ValueError, match="kind is one of"):
        flow_kl(VELOCITY, REF, TIMES, NEXT, LEVEL, kind="k3")
    with pytest.raises(ValueError, match="reduce is one of"):
        flow_kl(VELOCITY, REF, TIMES, NEXT, LEVEL, reduce="max")
