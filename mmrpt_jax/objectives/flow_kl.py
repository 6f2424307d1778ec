"""How far a flow's policy went from its reference, step by step.

Two steps from the same latents, at the same noise level s, are normals of the same deviation `std = s √|dt|`, and
their means differ by `(1 + s² (1 - t) / (2 t)) dt (v - v_ref)`: the latents themselves cancel. So

  exact      |Δmean|² / (2 std²) = |dt| / 2 · (s (1 - t) / (2 t) + 1 / s)² |v - v_ref|²     KL(π_θ ‖ π_ref), nats
  mean_only  |Δmean|² / (2 s²), which is |dt| times the exact one     the code of Flow-GRPO (arXiv 2505.05470)
  velocity   |v - v_ref|²     the same weight for all times, ODE steps included (UniGRPO, arXiv 2603.23500)

with |·|² the sum or the mean over dimensions. None is an estimate: each is known without sampling, with its
exact gradient.
"""

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.flow_transition import flow_transition, noisy
from mmrpt_jax.objectives.latents import LatentReduction, masked_latents, per_image, reduce_latents

FlowKLKind = Literal["exact", "mean_only", "velocity"]
FLOW_KL_KINDS: tuple[str, ...] = get_args(FlowKLKind)


def transition_kl(
    mean: Float[Array, "*E I C"],
    ref_mean: Float[Array, "*E I C"],
    std: Float[Array, "*#E"],
    mask: Bool[Array, "*#E"] | None = None,
    *,
    reduce: LatentReduction = "mean",
) -> Float[Array, "*E"]:
    """KL of two normals of the same deviation, `|mean - ref_mean|² / (2 std²)`, nats, ≥ 0.

    Args:
      mean: of the policy in training. Gradients flow through it only.
      ref_mean: of the reference; held constant.
      std: of both, ≥ 0. Where it is 0, so is the result.
      mask: steps that count; all, if not given. The result is 0 elsewhere, whatever the inputs are there.
      reduce: "sum" is the KL of the images, "mean" that of the average dimension.

    Raises:
      ValueError: unknown `reduce`.
    """
    chex.assert_equal_shape([mean, ref_mean])
    counted = noisy(std, mask)
    gap = _gap(mean, ref_mean, counted) / per_image(jnp.where(counted, std, 1), mean)
    return reduce_latents(0.5 * jnp.square(gap), reduce=reduce)


def flow_kl(
    velocity: Float[Array, "*E I C"],
    ref_velocity: Float[Array, "*E I C"],
    times: Float[Array, "*#E"],
    next_times: Float[Array, "*#E"],
    noise_level: Float[Array, "*#E"],
    mask: Bool[Array, "*#E"] | None = None,
    *,
    kind: FlowKLKind = "velocity",
    reduce: LatentReduction = "mean",
) -> Float[Array, "*E"]:
    """KL term of a step from the velocities alone, ≥ 0; see the module for the kinds.

    Args:
      velocity: v of the policy in training. Gradients flow through it only.
      ref_velocity: v of the reference at the same latents and times; held constant.
      times: as in `flow_transition`; so are `next_times` and `noise_level`. "velocity" looks at none of them;
        the others are 0 where there is no noise.
      mask: steps that count; all, if not given. The result is 0 elsewhere, whatever the inputs are there.
      kind: what is measured.
      reduce: over the dimensions of an image.

    Raises:
      ValueError: unknown `kind` or `reduce`.
    """
    if kind not in FLOW_KL_KINDS:
        raise ValueError(f"kind is one of {get_args(FlowKLKind)}, got {kind!r}.")
    gap = _gap(velocity, ref_velocity, mask)
    if kind == "velocity":
        return reduce_latents(jnp.square(gap), reduce=reduce)
    if mask is not None:
        times, next_times, noise_level = (jnp.where(mask, x, 0) for x in (times, next_times, noise_level))
    # The mean is linear in latents and velocity: that of their differences is the difference of the means.
    shift, std = flow_transition(jnp.zeros_like(gap), gap, times, next_times, noise_level)
    unit = std if kind == "exact" else noise_level
    return transition_kl(shift, jnp.zeros_like(shift), unit, reduce=reduce)


def _gap(values: Array, ref_values: Array, mask: Array | None) -> Array:
    """What a policy adds to its constant reference; 0 outside the mask."""
    chex.assert_equal_shape([values, ref_values])
    return masked_latents(values, mask) - jax.lax.stop_gradient(masked_latents(ref_values, mask))
