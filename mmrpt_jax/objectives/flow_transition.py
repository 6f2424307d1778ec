"""A flow as a policy: one step of the sampler with noise, its draw and its log density.

The ODE `dx = v dt` becomes an SDE with the same marginals when noise of level s is added and paid for with the
score `-ε / t` (Flow-GRPO, arXiv 2505.05470). With `ε = x + (1 - t) v` and `dt = t' - t < 0`, a step is

  p(x' | x) = N(mean, std²),   mean = x + (v + s² / (2 t) ε) dt,   std = s √(-dt)

which is Flow-GRPO's `x (1 + s² / (2 t) dt) + v (1 + s² (1 - t) / (2 t)) dt`, sorted by what it means; with a
constant s it is also DanceGRPO's (arXiv 2505.07818). `s = 0` is Euler's step of the ODE.

Guidance belongs to the policy: what stands here for v must be the same field in rollout and update.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmrpt_jax.objectives.flow_schedule import predict_noise
from mmrpt_jax.objectives.latents import LatentReduction, masked_latents, per_image, reduce_latents


class Transition(NamedTuple):
    """The normal distribution of the next latents: independent dimensions, one deviation per image.

    Attributes:
      mean: carries the gradient of the velocity.
      std: ≥ 0; 0 for a step without noise.
    """

    mean: Float[Array, "*E I C"]
    std: Float[Array, "*E"]


def flow_transition(
    latents: Float[Array, "*E I C"],
    velocity: Float[Array, "*E I C"],
    times: Float[Array, "*#E"],
    next_times: Float[Array, "*#E"],
    noise_level: Float[Array, "*#E"],
) -> Transition:
    """The distribution of the next latents; see the module for the formula.

    Args:
      latents: x, at `times`.
      velocity: v, the model's field at x and `times`.
      times: t in (0, 1], numbers also where a step is only padding. At t = 0 nothing is left to step over, and
        the noise term is left out.
      next_times: t' in [0, t].
      noise_level: s ≥ 0, as of `flow_sde_level` or `constant_level`; 0 for the ODE.
    """
    chex.assert_equal_shape([latents, velocity])
    chex.assert_type([latents, velocity], float)
    times = jnp.asarray(times)
    duration = times - next_times
    correction = jnp.square(noise_level) / (2 * jnp.where(times > 0, times, jnp.inf))
    drift = velocity + per_image(correction, latents) * predict_noise(latents, velocity, times)
    mean = latents - per_image(duration, latents) * drift
    return Transition(mean, jnp.broadcast_to(noise_level * jnp.sqrt(duration), latents.shape[:-2]))


def sample_transition(
    key: Key[Array, ""], mean: Float[Array, "*E I C"], std: Float[Array, "*#E"]
) -> Float[Array, "*E I C"]:
    """Draws the next latents `mean + std z`, `z ~ N(0, 1)`; the mean itself where `std` is 0."""
    return mean + per_image(std, mean) * jax.random.normal(key, mean.shape)


def transition_logprobs(
    next_latents: Float[Array, "*E I C"],
    mean: Float[Array, "*E I C"],
    std: Float[Array, "*#E"],
    mask: Bool[Array, "*#E"] | None = None,
    *,
    reduce: LatentReduction = "mean",
) -> Float[Array, "*E"]:
    """Log density of a step, nats, of either sign.

    `-½ ((x' - mean) / std)² - log std - ½ log 2π`, reduced over the dimensions of an image.

    A step without noise has no density: where `std` is 0 the result is 0, and the loss must leave it out.

    Args:
      next_latents: x', what was drawn; held constant.
      mean: of `flow_transition`. Gradients flow through it.
      std: of `flow_transition`, ≥ 0.
      mask: steps that count; all, if not given. The result is 0 elsewhere, whatever the inputs are there.
      reduce: "sum" is the density of the image. "mean" divides it by the number of dimensions (Flow-GRPO): a
        ratio of means is the geometric mean of the dimensions' ratios and moves that much less, hence clip
        ranges of 1e-4. A sum over many dimensions loses to float32 what it would tell of small updates.

    Raises:
      ValueError: unknown `reduce`.
    """
    chex.assert_equal_shape([next_latents, mean])
    counted = noisy(std, mask)
    std = per_image(jnp.where(counted, std, 1), mean)
    gap = jax.lax.stop_gradient(masked_latents(next_latents, counted)) - masked_latents(mean, counted)
    per_dimension = -0.5 * jnp.square(gap / std) - jnp.log(std) - 0.5 * math.log(2 * math.pi)
    return jnp.where(counted, reduce_latents(per_dimension, reduce=reduce), 0)


def noisy(std: Float[Array, "*#E"], mask: Bool[Array, "*#E"] | None) -> Bool[Array, "*#E"]:
    """Steps of the mask that have a density. NaN is no 0: a deviation that went wrong is to be seen."""
    drawn = jnp.asarray(std) != 0
    return drawn if mask is None else drawn & mask
