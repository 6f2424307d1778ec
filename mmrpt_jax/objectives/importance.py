"""Corrections for a sampler that is not quite the policy being trained.

Rollouts may come from a kernel, a precision or a policy version that differs from the one that computes
`behaviour_logprobs`. Multiplying the per-token loss by `importance_weights` removes the bias of that mismatch
up to a cap; `sequence_acceptance` drops completions on which the two disagree too much.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import log_ratio, masked


def importance_weights(
    behaviour_logprobs: Float[Array, "*E R"],
    sampler_logprobs: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    cap: float = 2.0,
    beyond: Literal["truncate", "drop"] = "truncate",
    log_ratio_bound: float = 20.0,
) -> Float[Array, "*E R"]:
    """Per-token weights `min(π_behaviour / π_sampler, cap)`, in [0, cap]; constants, 0 outside the mask.

    Truncated importance sampling (`beyond="truncate"`, Yao et al. 2025, "Your Efficient RL Framework Secretly
    Brings You Off-Policy RL Training"); `"drop"` gives weight 0 to tokens above the cap.

    Args:
      behaviour_logprobs: log-probabilities computed by the trainer, nats, ≤ 0.
      sampler_logprobs: log-probabilities the sampler drew from, nats, ≤ 0.
      mask: tokens that count.
      cap: largest weight.
      beyond: what happens to a ratio above the cap.
      log_ratio_bound: clamp on the log ratio, nats.

    Raises:
      ValueError: unknown `beyond`.
    """
    choices = ("truncate", "drop")
    if beyond not in choices:
        raise ValueError(f"beyond is one of {choices}, got {beyond!r}.")
    ratio = jnp.exp(log_ratio(behaviour_logprobs, sampler_logprobs, mask, bound=log_ratio_bound))
    capped = jnp.minimum(ratio, cap) if beyond == "truncate" else jnp.where(ratio > cap, 0, ratio)
    return jax.lax.stop_gradient(masked(capped, mask))


def sequence_acceptance(
    behaviour_logprobs: Float[Array, "*E R"],
    sampler_logprobs: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    low: float = 0.5,
    high: float = 2.0,
    log_ratio_bound: float = 20.0,
) -> Bool[Array, "*E"]:
    """Completions whose geometric-mean ratio `exp(mean_t log π_behaviour / π_sampler)` lies in `[low, high]`.

    The mean does not grow with the length, as the product of ratios would. Use it to narrow the loss mask:
    `mask & sequence_acceptance(...)[..., None]`. A completion without tokens is accepted.

    Args:
      behaviour_logprobs: log-probabilities computed by the trainer, nats, ≤ 0.
      sampler_logprobs: log-probabilities the sampler drew from, nats, ≤ 0.
      mask: tokens that count.
      low: smallest accepted ratio, in (0, 1].
      high: largest accepted ratio, ≥ 1.
      log_ratio_bound: clamp on the log ratio, nats.
    """
    per_token = log_ratio(behaviour_logprobs, sampler_logprobs, mask, bound=log_ratio_bound)
    ratio = jnp.exp(jnp.sum(per_token, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1))
    return (ratio >= low) & (ratio <= high)
