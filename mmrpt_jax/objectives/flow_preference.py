"""Supervised flow matching, and what rewards make of it: weights for the images of a group, or pairs of them.

The simplest baselines of reinforcement on images. No density is needed: the error of flow matching stands for
minus the log-likelihood.

  imitation         Σ w err / Σ w,   err = mean |v - (ε - x_0)|² (arXiv 2210.02747)
  reward-weighted   w = softmax(r / temperature) over the group (Peters and Schaal 2007; arXiv 2302.12192)
  best of group     w = 1 for the best image, shared by those that tie for it
  pairs             the best against the worst, Diffusion-DPO (arXiv 2311.12908)
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.objectives.advantages import zero_variance_groups
from mmrpt_jax.objectives.flow_schedule import velocity_target
from mmrpt_jax.objectives.latents import masked_latents, reduce_images, reduce_latents
from mmrpt_jax.objectives.ratios import masked
from mmrpt_jax.objectives.reductions import SumCount


class PreferencePairs(NamedTuple):
    """The best and the worst of each group.

    Attributes:
      winner: index in the group.
      loser: index in the group.
      mask: false where the two are equally good, and the pair says nothing.
    """

    winner: Int[Array, "*E"]
    loser: Int[Array, "*E"]
    mask: Bool[Array, "*E"]


def flow_matching_errors(
    velocity: Float[Array, "*E I C"],
    clean: Float[Array, "*E I C"],
    noise: Float[Array, "*E I C"],
    mask: Bool[Array, "*#E"] | None = None,
) -> Float[Array, "*E"]:
    """Mean squared error of a velocity, `mean |v - (ε - x_0)|²`, ≥ 0.

    Args:
      velocity: v, the model's prediction at `interpolate(clean, noise, times)`. Gradients flow through it only.
      clean: x_0, latents of data.
      noise: ε, standard normal.
      mask: images that count; all, if not given. The result is 0 elsewhere, whatever the inputs are there.
    """
    chex.assert_equal_shape([velocity, clean, noise])
    target = velocity_target(masked_latents(clean, mask), masked_latents(noise, mask))
    return reduce_latents(jnp.square(masked_latents(velocity, mask) - jax.lax.stop_gradient(target)))


def flow_matching_loss(
    velocity: Float[Array, "*E I C"],
    clean: Float[Array, "*E I C"],
    noise: Float[Array, "*E I C"],
    mask: Bool[Array, "*E"],
    *,
    weights: Float[Array, "*E"] | None = None,
) -> SumCount:
    """Supervised loss as `(sum, count)`: the sum of `w err` and that of w, so that `divide` gives a weighted mean.

    Args:
      velocity: see `flow_matching_errors`; so are `clean` and `noise`.
      mask: images that are trained on. Inputs outside it may be anything.
      weights: w ≥ 0, one per image, as of `reward_weights` or `best_of_group_weights`; held constant. 1, if not
        given.
    """
    errors = flow_matching_errors(velocity, clean, noise, mask)
    if weights is None:
        return reduce_images(errors, mask)
    chex.assert_equal_shape([weights, mask])
    weights = jax.lax.stop_gradient(masked(weights, mask))
    return jnp.sum(weights * errors), jnp.sum(weights)


def reward_weights(
    rewards: Float[Array, "*E G"], *, temperature: float, valid: Bool[Array, "*E G"] | None = None
) -> Float[Array, "*E G"]:
    """Weights of reward-weighted regression: `softmax(r / temperature)` over the group; they add up to 1.

    Args:
      rewards: one scalar reward per image.
      temperature: in units of reward, > 0. Small ones come close to `best_of_group_weights`.
      valid: images that could be scored; all, if not given. The others weigh 0.

    Raises:
      ValueError: `temperature` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is positive, got {temperature}; for its limit, best_of_group_weights.")
    rewards, valid = _scored(rewards, valid)
    best = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=-1, keepdims=True)
    return _shares(jnp.where(valid, jnp.exp((rewards - best) / temperature), 0))


def best_of_group_weights(
    rewards: Float[Array, "*E G"], *, valid: Bool[Array, "*E G"] | None = None
) -> Float[Array, "*E G"]:
    """Weight 1 for the best image of a group, in equal shares to those that tie; they add up to 1.

    Args:
      rewards: one scalar reward per image.
      valid: images that could be scored; all, if not given. The others weigh 0.
    """
    rewards, valid = _scored(rewards, valid)
    best = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=-1, keepdims=True)
    return _shares((valid & (rewards == best)).astype(rewards.dtype))


def preference_pairs(
    rewards: Float[Array, "*E G"], *, valid: Bool[Array, "*E G"] | None = None, tolerance: float = 0.0
) -> PreferencePairs:
    """The best and the worst image of each group; of several that tie, the first.

    Args:
      rewards: one scalar reward per image.
      valid: images that could be scored; all, if not given. The others are in no pair of the mask.
      tolerance: rewards no further apart than this are a tie, ≥ 0.
    """
    tied = zero_variance_groups(rewards, valid=valid, tolerance=tolerance)
    rewards, valid = _scored(rewards, valid)
    winner = jnp.argmax(jnp.where(valid, rewards, -jnp.inf), axis=-1)
    loser = jnp.argmin(jnp.where(valid, rewards, jnp.inf), axis=-1)
    return PreferencePairs(winner, loser, ~tied)


def flow_dpo_loss(
    winner_errors: Float[Array, "*E"],
    loser_errors: Float[Array, "*E"],
    ref_winner_errors: Float[Array, "*E"],
    ref_loser_errors: Float[Array, "*E"],
    mask: Bool[Array, "*E"],
    *,
    beta: float,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumCount]]:
    """Diffusion-DPO's loss of pairs to be minimised, as `(sum, count, metrics)` (arXiv 2311.12908).

    `-log σ(β m)` with the margin `m = (err_l - ref_err_l) - (err_w - ref_err_w)`: by how much more than its
    reference the policy prefers the winner. Log 2 where nothing has been learnt.

    Args:
      winner_errors: `flow_matching_errors` of the winners under the policy in training. Gradients flow through
        these and `loser_errors` only.
      loser_errors: of the losers, at the same times and, with less noise in the margin, the same noise.
      ref_winner_errors: under the reference, at the same times and noise; so are `ref_loser_errors`.
      ref_loser_errors: see `ref_winner_errors`.
      mask: pairs that count, as of `preference_pairs`. Inputs outside it may be anything.
      beta: β > 0. Errors are means over dimensions, so it is large: hundreds to thousands.

    Returns:
      The sum and the count, scalars, and the metrics "margin" (m) and "accuracy" (pairs with m > 0): means over
      pairs, as `(sum, count)`.
    """
    errors = (winner_errors, loser_errors, ref_winner_errors, ref_loser_errors)
    chex.assert_equal_shape([*errors, mask])
    winner, loser, ref_winner, ref_loser = (masked(x, mask) for x in errors)
    margin = (loser - winner) - jax.lax.stop_gradient(ref_loser - ref_winner)
    metrics = {"margin": margin, "accuracy": (margin > 0).astype(margin.dtype)}
    means = {name: reduce_images(value, mask) for name, value in metrics.items()}
    return *reduce_images(jax.nn.softplus(-beta * margin), mask), jax.lax.stop_gradient(means)


def _scored(rewards: Array, valid: Array | None) -> tuple[Array, Array]:
    """Rewards with 0 where they are not valid, and the mask of where they are."""
    chex.assert_type(rewards, float)
    if valid is None:
        return rewards, jnp.ones(rewards.shape, bool)
    chex.assert_equal_shape([rewards, valid])
    chex.assert_type(valid, bool)
    return masked(rewards, valid), valid


def _shares(weights: Array) -> Array:
    """Weights that add up to 1 in each group; a group without any keeps its zeros."""
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return jax.lax.stop_gradient(weights / jnp.where(total > 0, total, 1))
