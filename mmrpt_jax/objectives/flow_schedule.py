"""Times and noise levels of flow matching, and what a velocity says about data and noise.

A flow carries noise to data along straight lines (arXiv 2209.03003, 2210.02747):

  x_t = (1 - t) x_0 + t ε,   v = ε - x_0,   t from 1 (noise) down to 0 (data)

Times lie in [0, 1]. A model predicts v, from which `x_0 = x_t - t v` and `ε = x_t + (1 - t) v`. Sampling becomes
stochastic, and thereby a policy, with a noise level s per unit of √time: see `flow_transition.py`.
"""

from collections.abc import Sequence
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mmrpt_jax.objectives.latents import masked_latents, per_image

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


def timesteps(*, steps: int, shift: float = 1.0) -> Float[Array, " S"]:
    """The `S = steps + 1` times of a sampler: evenly spaced from exactly 1 to exactly 0, then shifted.

    Args:
      steps: number of steps. Code that counts the times (BAGEL's `num_timesteps`) takes one step less.
      shift: as in `shift_times`.

    Raises:
      ValueError: no step, or a `shift` that is not positive.
    """
    if steps < 1:
        raise ValueError(f"a sampler takes at least one step, got steps={steps}.")
    # On the host: a division on an accelerator may leave the first time a rounding short of 1.
    return jnp.asarray(_shifted(np.linspace(1.0, 0.0, steps + 1), shift), jnp.float32)


def shift_times(times: Float[Array, "*E"], *, shift: float) -> Float[Array, "*E"]:
    """Moves times towards the noise: `s t / (1 + (s - 1) t)` (Stable Diffusion 3, arXiv 2403.03206).

    Args:
      times: in [0, 1]; both ends stay where they are.
      shift: s > 0; 1 changes nothing, 3 is usual at 512 and 1024 pixels.

    Raises:
      ValueError: `shift` is not positive.
    """
    return _shifted(times, shift)


def logit_normal_times(
    key: Key[Array, ""], shape: Sequence[int], *, shift: float = 1.0
) -> Float[Array, "*shape"]:
    """Times to train at: `sigmoid(N(0, 1))`, then shifted (arXiv 2403.03206).

    Args:
      key: source of randomness.
      shape: most often that of the batch, one time per image.
      shift: as in `shift_times`.
    """
    return shift_times(jax.nn.sigmoid(jax.random.normal(key, tuple(shape))), shift=shift)


def interpolate(
    clean: Float[Array, "*E I C"], noise: Float[Array, "*E I C"], times: Float[Array, "*#E"]
) -> Float[Array, "*E I C"]:
    """The noised latents `x_t = (1 - t) x_0 + t ε`.

    Args:
      clean: x_0, latents of data.
      noise: ε, standard normal.
      times: t in [0, 1], one per image.
    """
    chex.assert_equal_shape([clean, noise])
    t = per_image(times, clean)
    return (1 - t) * clean + t * noise


def velocity_target(clean: Float[Array, "*E I C"], noise: Float[Array, "*E I C"]) -> Float[Array, "*E I C"]:
    """What a model learns to predict from x_t: `v = ε - x_0`."""
    chex.assert_equal_shape([clean, noise])
    return masked_latents(noise) - masked_latents(clean)


def predict_clean(
    latents: Float[Array, "*E I C"], velocity: Float[Array, "*E I C"], times: Float[Array, "*#E"]
) -> Float[Array, "*E I C"]:
    """The data that a velocity points to: `x_0 = x_t - t v`."""
    chex.assert_equal_shape([latents, velocity])
    return latents - per_image(times, latents) * velocity


def predict_noise(
    latents: Float[Array, "*E I C"], velocity: Float[Array, "*E I C"], times: Float[Array, "*#E"]
) -> Float[Array, "*E I C"]:
    """The noise that a velocity comes from: `ε = x_t + (1 - t) v`; the score of x_t is `-ε / t`."""
    chex.assert_equal_shape([latents, velocity])
    return latents + (1 - per_image(times, latents)) * velocity


def flow_sde_level(
    times: Float[Array, "*E"], *, second_time: float | Float[Array, ""], scale: float = 0.7
) -> Float[Array, "*E"]:
    """Flow-GRPO's noise level `a √(t / (1 - t))` (arXiv 2505.05470), ≥ 0.

    It is infinite at t = 1, so there its authors put the second time of the sampler in `1 - t`, and only there.
    The same is done here for whatever lies between the two times, which changes nothing on the sampler's grid.

    Args:
      times: in [0, 1].
      second_time: `timesteps(...)[1]` of the sampler, < 1.
      scale: a ≥ 0.
    """
    return scale * jnp.sqrt(times / (1 - jnp.minimum(times, second_time)))


def constant_level(times: Float[Array, "*E"], *, level: float = 0.3) -> Float[Array, "*E"]:
    """DanceGRPO's noise level η ≥ 0, the same at every time (arXiv 2505.07818)."""
    return jnp.full_like(times, level)


def _shifted(times: ArrayT, shift: float) -> ArrayT:
    if shift <= 0:
        raise ValueError(f"shift is positive (1 leaves times as they are), got {shift}.")
    return shift * times / (shift * times + (1 - times))
