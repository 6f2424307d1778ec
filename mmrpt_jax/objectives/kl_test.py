"""Rows C14 and C15: what the KL estimators estimate, what their gradients are, and that they stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.kl import kl_estimate, kl_penalised_rewards

# A 3-way categorical policy and its reference. By hand, with respect to the logits:
#   forward KL(π_ref ‖ π): π - π_ref = (0.167, -0.292, 0.125)
#   reverse KL(π ‖ π_ref): π (log(π / π_ref) - KL)
#     with KL = 0.351 · 0.6459 + 0.215 · -0.8579 + 0.434 · 0.3397 = 0.1897:
#     (0.351 · 0.4562, 0.215 · -1.0476, 0.434 · 0.1500) = (0.160, -0.225, 0.065)
POLICY = np.array([0.351, 0.215, 0.434], np.float32)
REFERENCE = np.array([0.184, 0.507, 0.309], np.float32)
FORWARD = np.array([0.167, -0.292, 0.125])
REVERSE = np.array([0.160, -0.225, 0.065])
EACH = jnp.ones((3, 1), bool)  # three completions of one token: one for each outcome


def assert_close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), atol=atol)


def expected_gradient(per_outcome_loss, policy):
    """E[∂ loss(y) / ∂ logits] for y ~ π, by summing over the outcomes; π outside the loss is data."""

    def expected_loss(logits):
        return jnp.sum(policy * per_outcome_loss(jax.nn.log_softmax(logits)[:, None])[:, 0])

    return jax.grad(expected_loss)(jnp.log(policy))


def kl_in_the_loss(kind, reference):
    return lambda lp: kl_estimate(lp, jnp.log(reference)[:, None], EACH, kind=kind)


def k1_in_the_reward(reference):
    def loss(lp):
        rewards = kl_penalised_rewards(jnp.zeros(3), lp, jnp.log(reference)[:, None], EACH, coefficient=1.0)
        return -rewards[:, None] * lp

    return loss


def test_c14_gradients_on_the_worked_categorical():
    assert_close(expected_gradient(kl_in_the_loss("k1", REFERENCE), POLICY), np.zeros(3))
    assert_close(expected_gradient(kl_in_the_loss("k2", REFERENCE), POLICY), REVERSE, atol=5e-4)
    assert_close(expected_gradient(kl_in_the_loss("k3", REFERENCE), POLICY), FORWARD, atol=5e-4)
    assert_close(expected_gradient(k1_in_the_reward(REFERENCE), POLICY), REVERSE, atol=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_c14_gradients_on_any_categorical(seed):
    policy, reference = np.random.default_rng(seed).dirichlet(np.full(3, 3.0), size=2).astype(np.float32)
    log_odds = np.log(policy / reference)
    reverse = policy * (log_odds - np.sum(policy * log_odds))
    assert_close(expected_gradient(kl_in_the_loss("k1", reference), policy), np.zeros(3))
    assert_close(expected_gradient(kl_in_the_loss("k2", reference), policy), reverse)
    assert_close(expected_gradient(kl_in_the_loss("k3", reference), policy), policy - reference)
    assert_close(expected_gradient(k1_in_the_reward(reference), policy), reverse)


def test_c14_expected_values():
    logprobs, ref_logprobs = jnp.log(POLICY)[:, None], jnp.log(REFERENCE)[:, None]
    true_kl = np.sum(POLICY * np.log(POLICY / REFERENCE))
    for kind in ("k1", "k3"):
        estimate = kl_estimate(logprobs, ref_logprobs, EACH, kind=kind)[:, 0]
        assert_close(np.sum(POLICY * estimate), true_kl)


def test_c14_formulas():
    # log ρ = log(0.2 / 0.4) = -0.693147 and log(0.6 / 0.3) = 0.693147.
    logprobs, ref_logprobs = jnp.log(jnp.array([0.4, 0.3])), jnp.log(jnp.array([0.2, 0.6]))
    both = jnp.ones(2, bool)
    assert_close(kl_estimate(logprobs, ref_logprobs, both, kind="k1"), [0.693147, -0.693147])
    assert_close(kl_estimate(logprobs, ref_logprobs, both, kind="k2"), [0.240227, 0.240227])
    # ρ - 1 - log ρ: 0.5 - 1 + 0.693147 and 2 - 1 - 0.693147.
    assert_close(kl_estimate(logprobs, ref_logprobs, both, kind="k3"), [0.193147, 0.306853])


def test_c14_k3_of_close_policies_is_not_lost_to_rounding():
    # δ²/2 = 5e-9 for δ = 1e-4; exp(δ) - 1 - δ in float32 would be 0 or a multiple of 6e-8.
    k3 = kl_estimate(jnp.array([0.0]), jnp.array([-1e-4]), jnp.ones(1, bool), kind="k3")
    np.testing.assert_allclose(k3, [5e-9], rtol=0.5)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("gap", [300.0, -300.0, jnp.inf, -jnp.inf])
def test_c15_no_overflow(kind, gap):
    def total(lp):
        return kl_estimate(lp, jnp.array([-1.0 + gap]), jnp.ones(1, bool), kind=kind).sum()

    value, gradient = jax.value_and_grad(total)(jnp.array([-1.0]))
    assert abs(value) <= 10.0
    assert np.isfinite(gradient).all()


def test_c15_bounds():
    # k1 = 30 is clamped to 20 by the first bound and to 10 by the second.
    args = (jnp.array([0.0]), jnp.array([-30.0]), jnp.ones(1, bool))
    assert_close(kl_estimate(*args, kind="k1"), [10.0])
    assert_close(kl_estimate(*args, kind="k1", value_bound=100.0), [20.0])
    assert_close(kl_estimate(*args, kind="k1", value_bound=100.0, log_ratio_bound=50.0), [30.0])


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_what_stands_outside_the_mask_has_no_effect(kind):
    mask = jnp.array([True, False])
    ref_logprobs = jnp.array([-2.0, -jnp.inf])

    def total(lp):
        return kl_estimate(lp, ref_logprobs, mask, kind=kind).sum()

    value, gradient = jax.value_and_grad(total)(jnp.array([-1.0, jnp.nan]))
    # On the first token, k1 = 1: k2 = ½ and k3 = e⁻¹ - 1 + 1.
    assert_close(value, {"k1": 1.0, "k2": 0.5, "k3": 0.367879}[kind])
    assert gradient[1] == 0


def test_kl_penalised_rewards():
    logprobs = jnp.log(jnp.array([[0.4, 0.5], [0.3, 0.1]]))
    ref_logprobs = jnp.log(jnp.array([[0.2, 0.5], [0.6, 0.9]]))
    mask = jnp.array([[True, True], [True, False]])
    # Σ k1 = log 2 + 0 and -log 2. 1 - 0.1 · 0.693147 and 0 + 0.1 · 0.693147.
    rewards = kl_penalised_rewards(jnp.array([1.0, 0.0]), logprobs, ref_logprobs, mask, coefficient=0.1)
    assert_close(rewards, [0.930685, 0.069315])


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind is one of"):
        kl_estimate(jnp.zeros(1), jnp.zeros(1), jnp.ones(1, bool), kind="k4")
