"""Group-relative advantages: how much better an answer is than the other answers to the same prompt.

The baseline is always the mean reward of the group. What divides the difference is a choice: the standard
deviation of the group (GRPO), of the whole batch (Lite-PPO), or nothing (Dr. GRPO). A `valid` mask takes
completions that could not be scored out of every mean and standard deviation; their advantage is 0.

No function here looks at gradients: rewards are data.
"""

from collections.abc import Callable
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Scale = Literal["group", "batch", "none"]
AxisName = str | tuple[str, ...] | None

_Sum = Callable[[Array], Array]


def group_advantages(
    rewards: Float[Array, "*E G"],
    *,
    scale: Scale = "group",
    ddof: int = 1,
    min_std: float = 1e-4,
    eps: float = 1e-6,
    valid: Bool[Array, "*E G"] | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*E G"]:
    """Rewards relative to their group: `A_i = (r_i - mean(r)) / (std + eps)`.

    `scale="group"` is GRPO (arXiv 2402.03300), `"batch"` divides by the standard deviation of all rewards
    (Lite-PPO, arXiv 2508.08221), `"none"` does not divide (Dr. GRPO, arXiv 2503.20783).

    A group of two has advantages ±0.707 whatever its rewards (`scale="group"`, `ddof=1`); prefer G ≥ 4. A
    group with one valid completion has advantage 0: a lone reward is its own mean.

    Args:
      rewards: one scalar reward per completion, any range.
      scale: what divides the centred rewards.
      ddof: 1 for the sample standard deviation (TRL, verl), 0 for the population's (EasyDeL, Flow-GRPO).
      min_std: where the standard deviation does not exceed this, advantages are 0 and not noise of size 1.
        Raise it for continuous rewards, whose groups are never exactly equal. Without effect if
        `scale="none"`.
      eps: added to the standard deviation.
      valid: completions that could be scored; all, if not given.
      axis_name: mapped axis or axes over which the batch is split, for `scale="batch"` inside `pmap` or
        `shard_map`.

    Raises:
      ValueError: unknown `scale`, or `ddof` is neither 0 nor 1.
    """
    chex.assert_type(rewards, float)
    return _relative_to_group(
        rewards,
        _all_valid(rewards, valid),
        lambda x: jnp.sum(x, axis=-1, keepdims=True),
        _batch_sum(axis_name),
        scale=scale,
        ddof=ddof,
        min_std=min_std,
        eps=eps,
    )


def segment_advantages(
    rewards: Float[Array, " N"],
    group_ids: Int[Array, " N"],
    *,
    num_groups: int,
    scale: Scale = "group",
    ddof: int = 1,
    min_std: float = 1e-4,
    eps: float = 1e-6,
    valid: Bool[Array, " N"] | None = None,
    axis_name: AxisName = None,
) -> Float[Array, " N"]:
    """`group_advantages` for completions in any order, with groups of any size named by `group_ids`.

    Group statistics are segment sums, so shuffling or sharding may separate a group: with `axis_name`, its
    members may even live on different devices.

    Args:
      rewards: one scalar reward per completion.
      group_ids: the group of each completion, in `[0, num_groups)`. Others are padding: they count nowhere
        and get 0.
      num_groups: number of groups over all devices.
      scale: as in `group_advantages`; so are `ddof`, `min_std`, `eps` and `valid`.
      axis_name: mapped axis or axes over which completions are split, inside `pmap` or `shard_map`.
    """
    chex.assert_rank([rewards, group_ids], 1)
    chex.assert_type([rewards, group_ids], [float, int])
    chex.assert_equal_shape([rewards, group_ids])
    batch_sum = _batch_sum(axis_name)
    in_range = (group_ids >= 0) & (group_ids < num_groups)
    members = jnp.where(in_range, group_ids, 0)

    def group_sum(x: Array) -> Array:
        totals = jax.ops.segment_sum(x, members, num_groups)
        return (totals if axis_name is None else jax.lax.psum(totals, axis_name))[members]

    counted = _all_valid(rewards, valid) & in_range
    return _relative_to_group(
        rewards, counted, group_sum, batch_sum, scale=scale, ddof=ddof, min_std=min_std, eps=eps
    )


def rloo_advantages(
    rewards: Float[Array, "*E G"], *, valid: Bool[Array, "*E G"] | None = None
) -> Float[Array, "*E G"]:
    """Leave-one-out advantages: each reward minus the mean of the *others* in its group (arXiv 2402.14740).

    Equal to `G / (G - 1) * (r_i - mean(r))`, which is how it is computed. A group with one valid completion
    gets 0.

    Args:
      rewards: one scalar reward per completion.
      valid: completions that could be scored; all, if not given.
    """
    chex.assert_type(rewards, float)
    valid = _all_valid(rewards, valid)
    size = jnp.sum(valid, axis=-1, keepdims=True)
    centred = _centre(rewards, valid, lambda x: jnp.sum(x, axis=-1, keepdims=True))
    return centred * size / jnp.maximum(size - 1, 1)


def zero_variance_groups(
    rewards: Float[Array, "*E G"], *, valid: Bool[Array, "*E G"] | None = None, tolerance: float = 0.0
) -> Bool[Array, "*E"]:
    """Groups that teach nothing: all valid rewards lie within `tolerance` of each other.

    Leaving these groups out, or sampling others in their place, is dynamic sampling (DAPO, arXiv 2503.14476).
    It is the range that is compared, so equal rewards are recognised without rounding. A group with fewer
    than two valid completions is one of them.
    """
    chex.assert_type(rewards, float)
    valid = _all_valid(rewards, valid)
    highest = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=-1)
    lowest = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=-1)
    return highest <= lowest + tolerance


def _relative_to_group(
    rewards: Array,
    valid: Array,
    group_sum: _Sum,
    batch_sum: _Sum,
    *,
    scale: Scale,
    ddof: int,
    min_std: float,
    eps: float,
) -> Array:
    """Centres by group and divides by the standard deviation; the sums say what a group and the batch are."""
    if scale not in get_args(Scale):
        raise ValueError(f"scale is one of {get_args(Scale)}, got {scale!r}.")
    if ddof not in (0, 1):
        raise ValueError(f"ddof is 0 (population) or 1 (sample standard deviation), got {ddof!r}.")
    centred = _centre(rewards, valid, group_sum)
    if scale == "none":
        return centred
    total = group_sum if scale == "group" else batch_sum
    spread = centred if scale == "group" else _centre(rewards, valid, batch_sum)
    count = total(valid.astype(spread.dtype))
    std = jnp.sqrt(total(spread**2) / jnp.maximum(count - ddof, 1))
    return jnp.where(std > min_std, centred / jnp.where(std > min_std, std + eps, 1), 0)


def _centre(rewards: Array, valid: Array, total: _Sum) -> Array:
    """Rewards minus their mean; 0 where not valid."""
    rewards = jnp.where(valid, rewards, 0)
    mean = total(rewards) / jnp.maximum(total(valid.astype(rewards.dtype)), 1)
    return jnp.where(valid, rewards - mean, 0)


def _batch_sum(axis_name: AxisName) -> _Sum:
    return jnp.sum if axis_name is None else lambda x: jax.lax.psum(jnp.sum(x), axis_name)


def _all_valid(rewards: Array, valid: Array | None) -> Array:
    if valid is None:
        return jnp.ones(rewards.shape, bool)
    chex.assert_equal_shape([rewards, valid])
    chex.assert_type(valid, bool)
    return valid
