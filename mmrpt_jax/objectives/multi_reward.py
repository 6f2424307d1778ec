"""Several rewards per completion: add them first, or normalise each of them first?

Adding first (`sum_then_normalise`) is what GRPO implementations do; a reward with a large spread drowns the
others, and different mixtures may collapse to the same advantages. Normalising first keeps them apart, and
GDPO renormalises the result over the batch so that its size does not grow with the number of rewards.

In all three, `advantage_fn` is any function of `(rewards [*E, G], valid=[*E, G])`: `group_advantages`,
`rloo_advantages`, or a `functools.partial` of them.
"""

from typing import Protocol

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.advantages import AxisName, group_advantages, segment_advantages


class AdvantageFn(Protocol):
    """From the rewards of groups to their advantages."""

    def __call__(self, rewards: Float[Array, "*E G"], *, valid: Bool[Array, "*E G"]) -> Float[Array, "*E G"]:
        """Returns advantages of the shape of `rewards`, 0 where not `valid`."""


def sum_then_normalise(
    rewards: Float[Array, "*E G K"],
    weights: Float[Array, " K"],
    *,
    advantage_fn: AdvantageFn = group_advantages,
    valid: Bool[Array, "*E G K"] | None = None,
) -> Float[Array, "*E G"]:
    """Advantages of the weighted sum: `A(Σ_k w_k r_k)`.

    Args:
      rewards: K rewards per completion.
      weights: one weight per reward.
      advantage_fn: from the summed reward to advantages.
      valid: rewards that apply. One that does not adds nothing to the sum; a completion to which none applies
        is left out of its group.
    """
    rewards, valid = _applicable(rewards, weights, valid)
    return advantage_fn(jnp.sum(rewards * weights, axis=-1), valid=jnp.any(valid, axis=-1))


def normalise_then_sum(
    rewards: Float[Array, "*E G K"],
    weights: Float[Array, " K"],
    *,
    advantage_fn: AdvantageFn = group_advantages,
    valid: Bool[Array, "*E G K"] | None = None,
) -> Float[Array, "*E G"]:
    """Weighted sum of the advantages of each reward: `Σ_k w_k A(r_k)`.

    Args:
      rewards: K rewards per completion.
      weights: one weight per reward.
      advantage_fn: from one reward to its advantages.
      valid: rewards that apply; the others are left out of that reward's group and add 0.
    """
    rewards, valid = _applicable(rewards, weights, valid)
    advantages = jax.vmap(lambda r, v: advantage_fn(r, valid=v), in_axes=-1, out_axes=-1)(rewards, valid)
    return jnp.sum(advantages * weights, axis=-1)


def gdpo(
    rewards: Float[Array, "*E G K"],
    weights: Float[Array, " K"],
    *,
    advantage_fn: AdvantageFn = group_advantages,
    min_std: float = 1e-4,
    eps: float = 1e-6,
    valid: Bool[Array, "*E G K"] | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*E G"]:
    """`normalise_then_sum`, then normalised over the batch (GDPO, arXiv 2601.05242).

    `A = (S - mean(S)) / (std(S) + eps)` with `S = Σ_k w_k A(r_k)` and the sample statistics of all valid
    completions.

    Args:
      rewards: K rewards per completion.
      weights: one weight per reward.
      advantage_fn: from one reward to its advantages.
      min_std: where the standard deviation of `S` does not exceed this, advantages are 0.
      eps: added to the standard deviation.
      valid: rewards that apply; a completion to which none applies is left out of the batch and gets 0.
      axis_name: mapped axis or axes over which the batch is split, inside `pmap` or `shard_map`.
    """
    summed = normalise_then_sum(rewards, weights, advantage_fn=advantage_fn, valid=valid)
    scored = jnp.ones(summed.shape, bool) if valid is None else jnp.any(valid, axis=-1)
    one_group = jnp.zeros(summed.size, jnp.int32)
    normalised = segment_advantages(
        summed.reshape(-1),
        one_group,
        num_groups=1,
        min_std=min_std,
        eps=eps,
        valid=scored.reshape(-1),
        axis_name=axis_name,
    )
    return normalised.reshape(summed.shape)


def _applicable(rewards: Array, weights: Array, valid: Array | None) -> tuple[Array, Array]:
    """Rewards with 0 where they do not apply, and the mask of where they do."""
    chex.assert_type([rewards, weights], float)
    chex.assert_shape(weights, rewards.shape[-1:])
    if valid is None:
        return rewards, jnp.ones(rewards.shape, bool)
    chex.assert_equal_shape([rewards, valid])
    chex.assert_type(valid, bool)
    return jnp.where(valid, rewards, 0), valid
