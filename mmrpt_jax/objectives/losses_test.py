"""Rows C5, C9 and C16 to C18 on the whole loss, and every variant worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmrpt_jax.objectives.advantages import group_advantages, zero_variance_groups
from mmrpt_jax.objectives.losses import VARIANTS, Variant, policy_loss
from mmrpt_jax.objectives.reductions import divide
from mmrpt_jax.objectives.surrogate import clipped_surrogate

# Completions of one and of three tokens. All have log π = log 0.3 = -1.203973.
RATIO = np.array([[1.5, 9.0, 9.0], [1.0, 0.5, 1.25]], np.float32)
MASK = jnp.array([[True, False, False], [True, True, True]])
LOGPROBS = jnp.full((2, 3), -1.203973)
BEHAVIOUR = LOGPROBS - np.log(RATIO)
ADVANTAGES = jnp.array([2.0, -1.0])


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=atol)


def test_grpo():
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="grpo")
    # -min(3, 2.4); then 1, -min(-0.5, -0.8) = 0.8, -min(-1.25, -1.2) = 1.25, their mean 3.05 / 3.
    assert_close((total, count), (-2.4 + 3.05 / 3, 2))


def test_dr_grpo():
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="dr_grpo", budget=4)
    assert_close((total, count), (-2.4 + 3.05, 2 * 4))


def test_dapo():
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="dapo")
    # The upper end is 1.28: -min(3, 2.56). The other three are on the lower side, or unclipped.
    assert_close((total, count), (-2.56 + 3.05, 4))


def test_gspo():
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="gspo")
    # s = 1.5: -min(3, 2 · 1.0004). s = 0.625^(1/3) = 0.855: -min(-0.855, -0.9997), on each of three tokens.
    assert_close((total, count), (-2.0008 + 0.9997, 2))


def test_cispo():
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="cispo")
    # -1.5 · 2 · -1.203973, and (1 + 0.5 + 1.25) · 1 · -1.203973.
    assert_close((total, count), (3.611919 - 3.310926, 4))


def test_clip_range_in_place_of_the_published_one():
    total, _, _ = policy_loss(
        LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant="dapo", clip_low=0.4, clip_high=1.0
    )
    # -min(3, clip(1.5, 0.6, 2) · 2 = 3); then 1, -min(-0.5, -0.6) = 0.6, 1.25.
    assert_close(total, -3.0 + 1.0 + 0.6 + 1.25)


def test_a_variant_of_your_own():
    surrogate = functools.partial(clipped_surrogate, clip_low=0.4, clip_high=0.4, dual_clip=1.1)
    variant = Variant(surrogate, reduction="token", scale="none")
    total, count, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, variant=variant)
    # -min(3, 2.8); then 1, 0.6, and 1.25 capped at 1.1.
    assert_close((total, count), (-2.8 + 1.0 + 0.6 + 1.1, 4))


def test_metrics():
    entropy = jnp.array([[0.5, jnp.nan, jnp.nan], [1.0, 1.5, 2.0]])
    ref_logprobs = LOGPROBS - 1.0
    _, _, metrics = policy_loss(
        LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, ref_logprobs=ref_logprobs, kl="k2", entropy=entropy
    )
    # Clipped: 1.5 with A > 0 and 0.5 with A < 0. k2 = ½ · 1² on each of four tokens.
    expected = {"ratio": (4.25, 4), "clip_fraction": (2, 4), "kl": (2, 4), "entropy": (5, 4)}
    assert metrics.keys() == expected.keys()
    for name, pair in expected.items():
        assert_close(metrics[name], pair)


def test_kl_and_entropy_terms():
    common = dict(ref_logprobs=LOGPROBS - 1.0, kl="k2", entropy=jnp.full((2, 3), 3.0))
    total, count, _ = policy_loss(
        LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, kl_coefficient=0.1, entropy_coefficient=0.01, **common
    )
    # Added to each token, hence to each mean: 0.1 · ½ - 0.01 · 3.
    assert_close(divide(total, count), (-2.4 + 3.05 / 3) / 2 + 0.05 - 0.03)
    measured, _, _ = policy_loss(LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK, **common)
    assert_close(measured, -2.4 + 3.05 / 3)


def test_token_weights_scale_the_surrogate_only():
    weights = jnp.array([[2.0, jnp.nan, jnp.nan], [1.0, 0.0, 0.5]])
    total, _, _ = policy_loss(
        LOGPROBS,
        BEHAVIOUR,
        ADVANTAGES,
        MASK,
        variant="dapo",
        token_weights=weights,
        ref_logprobs=LOGPROBS - 1.0,
        kl="k2",
        kl_coefficient=0.1,
    )
    # 2 · -2.56 + 1 · 1 + 0 · 0.8 + 0.5 · 1.25, and 0.1 · ½ for each of four tokens.
    assert_close(total, -5.12 + 1.0 + 0.625 + 0.2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_c9_ratio_is_one_on_the_first_step(variant):
    _, _, metrics = policy_loss(LOGPROBS, LOGPROBS, ADVANTAGES, MASK, variant=variant, budget=3)
    assert float(divide(*metrics["ratio"])) == 1.0
    assert float(divide(*metrics["clip_fraction"])) == 0.0


def random_batch():
    """Eight completions, one of them without a token in the mask."""
    rng = np.random.default_rng(0)
    logprobs, noise = rng.normal(size=(2, 8, 5)).astype(np.float32)
    mask = np.arange(5) < np.array([5, 1, 2, 0, 4, 3, 5, 2])[:, None]
    advantages = rng.normal(size=8).astype(np.float32)
    return -np.abs(logprobs), -np.abs(logprobs) + 0.2 * noise, advantages, mask


def sums(variant, logprobs, behaviour, advantages, mask):
    total, count, _ = policy_loss(
        logprobs,
        behaviour,
        advantages,
        mask,
        variant=variant,
        budget=5,
        ref_logprobs=behaviour,
        kl="k3",
        kl_coefficient=0.1,
    )
    return total, count


@functools.cache
def whole_batch_gradient(variant):
    batch = [jnp.asarray(x) for x in random_batch()]
    return np.asarray(jax.grad(lambda lp: divide(*sums(variant, lp, *batch[1:])))(batch[0]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_c5_gradient_does_not_depend_on_micro_batches(variant):
    splits = 4
    batch = jax.tree.map(lambda x: jnp.asarray(x).reshape(splits, -1, *x.shape[1:]), random_batch())

    @jax.jit
    def micro_batch(logprobs, *rest):
        return jax.grad(lambda lp: sums(variant, lp, *rest), has_aux=True)(logprobs)

    parts = [micro_batch(*(x[i] for x in batch)) for i in range(splits)]
    count = sum(count for _, count in parts)
    gradient = np.concatenate([gradient for gradient, _ in parts]) / count
    assert_close(gradient, whole_batch_gradient(variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_c5_gradient_does_not_depend_on_the_number_of_devices(variant):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    def sharded(logprobs, *rest):
        gradient, count = jax.grad(lambda lp: sums(variant, lp, *rest), has_aux=True)(logprobs)
        return divide(gradient, jax.lax.psum(count, "data"))

    assert_close(sharded(*random_batch()), whole_batch_gradient(variant))


def kl_gradient(advantages, mask=MASK, **kwargs):
    def loss(lp):
        total, count, _ = policy_loss(
            lp, LOGPROBS, advantages, mask, variant="dapo", ref_logprobs=LOGPROBS - 1.0, kl="k2", **kwargs
        )
        return divide(total, count)

    return jax.grad(loss)(LOGPROBS)


def test_c16_kl_flows_on_zero_advantage_groups_unless_masked():
    advantages = jnp.array([0.0, 1.0])
    # Four tokens. Surrogate: -A / 4; KL: 0.1 · k1 / 4 = 0.1 / 4, also where A = 0.
    flows = kl_gradient(advantages, kl_coefficient=0.1)
    assert_close(flows, [[0.025, 0, 0], [-0.225, -0.225, -0.225]])
    # Without the KL on the first completion; the count is still four.
    masked = kl_gradient(advantages, kl_coefficient=0.1, kl_mask=MASK & (advantages != 0)[:, None])
    assert_close(masked, [[0, 0, 0], [-0.225, -0.225, -0.225]])


@pytest.mark.parametrize("variant", VARIANTS)
def test_c17_an_all_truncated_batch_has_loss_zero(variant):
    batch = [jnp.asarray(x) for x in random_batch()[:3]]
    empty = jnp.zeros((8, 5), bool)
    loss, gradient = jax.value_and_grad(lambda lp: divide(*sums(variant, lp, *batch[1:], empty)))(batch[0])
    assert loss == 0
    np.testing.assert_array_equal(gradient, np.zeros((8, 5)))


def test_c18_zero_variance_groups_in_or_out_of_the_count():
    rewards = jnp.array([[1.0, 1.0], [0.0, 1.0]])
    logprobs = jnp.full((2, 2, 3), -1.0)
    mask = jnp.ones((2, 2, 3), bool)
    advantages = group_advantages(rewards)
    kept, all_tokens, _ = policy_loss(logprobs, logprobs, advantages, mask, variant="dapo")
    informative = mask & ~zero_variance_groups(rewards)[:, None, None]
    left, fewer_tokens, _ = policy_loss(logprobs, logprobs, advantages, informative, variant="dapo")
    # The equal group adds nothing to the sum; leaving it out halves the count, so it doubles the step.
    assert_close((kept, all_tokens, left, fewer_tokens), (0, 12, 0, 6))


def test_bad_arguments():
    args = (LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK)
    with pytest.raises(ValueError, match="variant is one of"):
        policy_loss(*args, variant="ppo")
    with pytest.raises(ValueError, match="k1 belongs in the reward"):
        policy_loss(*args, kl="k1", ref_logprobs=LOGPROBS)
    with pytest.raises(ValueError, match="pass ref_logprobs"):
        policy_loss(*args, kl="k3")
    with pytest.raises(ValueError, match="pass budget"):
        policy_loss(*args, variant="dr_grpo")
