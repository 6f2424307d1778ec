"""Policy-gradient surrogates: per-token losses to be minimised, before any reduction.

All take the same arguments, so that one can stand for another:

  logprobs             log π_θ(y_t), nats, ≤ 0. Gradients flow through these only.
  behaviour_logprobs   the same tokens under the policy that the clip range is measured from; held constant.
                       On policy, pass `logprobs` itself: the ratio is 1, the gradient that of REINFORCE.
  advantages           one per completion `[*E]` or one per token `[*E, R]`; held constant.
  mask                 tokens that are trained on. Outside it every output is 0, and inputs may be anything,
                       NaN included.

Why the loss is not reduced here: see `reductions.py`.
"""

from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import log_ratio, masked


class SurrogateOutput(NamedTuple):
    """What a surrogate says about each token; 0 or false outside the mask.

    Attributes:
      loss: to be minimised; only this one carries a gradient.
      ratio: importance ratio π_θ / π_behaviour, ≥ 0.
      clipped: the ratio left its range on the side where that stops, or caps, the gradient.
    """

    loss: Float[Array, "*E R"]
    ratio: Float[Array, "*E R"]
    clipped: Bool[Array, "*E R"]


class Surrogate(Protocol):
    """Any function of this module."""

    def __call__(
        self,
        logprobs: Float[Array, "*E R"],
        behaviour_logprobs: Float[Array, "*E R"],
        advantages: Float[Array, "*E"] | Float[Array, "*E R"],
        mask: Bool[Array, "*E R"],
        *,
        clip_low: float = ...,
        clip_high: float = ...,
    ) -> SurrogateOutput:
        """Returns the per-token loss, and what it was made of."""


def clipped_surrogate(
    logprobs: Float[Array, "*E R"],
    behaviour_logprobs: Float[Array, "*E R"],
    advantages: Float[Array, "*E"] | Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    log_ratio_bound: float = 20.0,
) -> SurrogateOutput:
    """PPO's pessimistic surrogate: `-min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A)`.

    `ρ = π_θ / π_behaviour` (arXiv 1707.06347). `clip_high > clip_low` is "clip-higher" of DAPO (arXiv
    2503.14476). `dual_clip=c` also bounds the loss of tokens with a negative advantage by `-c A` (arXiv
    1912.09729).

    Args:
      logprobs: see the module; so are `behaviour_logprobs`, `advantages` and `mask`.
      clip_low: how far below 1 the ratio may fall, in [0, 1].
      clip_high: how far above 1 the ratio may rise, ≥ 0.
      dual_clip: cap on the ratio where the advantage is negative, > 1 (often 3); none by default.
      log_ratio_bound: clamp on |log ρ|, nats.

    Raises:
      ValueError: `dual_clip` ≤ 1, which would undo the ordinary clip.
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip is a cap on the ratio and lies above 1, got {dual_clip}.")
    ratio = jnp.exp(log_ratio(logprobs, behaviour_logprobs, mask, bound=log_ratio_bound))
    advantages = _per_token(advantages, mask)
    loss, clipped = _pessimistic(ratio, advantages, clip_low, clip_high)
    if dual_clip is not None:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)
        clipped |= (advantages < 0) & (ratio > dual_clip)
    return _output(loss, ratio, clipped, mask)


def gspo_surrogate(
    logprobs: Float[Array, "*E R"],
    behaviour_logprobs: Float[Array, "*E R"],
    advantages: Float[Array, "*E"] | Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    log_ratio_bound: float = 20.0,
) -> SurrogateOutput:
    """GSPO: the clipped surrogate on one length-normalised ratio per completion (arXiv 2507.18071).

    `s = exp(mean_t log ρ_t)`, and each token carries `s_t = sg[s] π_θ(y_t) / sg[π_θ(y_t)]`: the value of `s`
    with the token's own gradient. For one advantage per completion this is the paper's objective, and
    advantages per token remain possible.

    Args:
      logprobs: see the module; so are `behaviour_logprobs`, `advantages` and `mask`.
      clip_low: how far below 1 the sequence ratio may fall. A mean of logs moves far less than one token's
        ratio: the range is about 1000 times narrower than PPO's.
      clip_high: how far above 1 it may rise.
      log_ratio_bound: clamp on |log ρ_t|, nats.
    """
    per_token = log_ratio(logprobs, behaviour_logprobs, mask, bound=log_ratio_bound)
    length = jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
    sequence = jax.lax.stop_gradient(jnp.sum(per_token, axis=-1, keepdims=True) / length)
    own_gradient = log_ratio(logprobs, logprobs, mask)
    ratio = jnp.exp(sequence + own_gradient)
    loss, clipped = _pessimistic(ratio, _per_token(advantages, mask), clip_low, clip_high)
    return _output(loss, ratio, clipped, mask)


def cispo_surrogate(
    logprobs: Float[Array, "*E R"],
    behaviour_logprobs: Float[Array, "*E R"],
    advantages: Float[Array, "*E"] | Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    clip_low: float = 0.0,
    clip_high: float = 5.0,
    log_ratio_bound: float = 20.0,
) -> SurrogateOutput:
    """CISPO: `-sg[clip(ρ, clip_low, clip_high)] A log π_θ` (MiniMax-M1, arXiv 2506.13585).

    The importance weight is clipped and held constant, so a clipped token still learns, with a bounded
    weight.

    Args:
      logprobs: see the module; so are `behaviour_logprobs`, `advantages` and `mask`.
      clip_low: smallest weight; absolute, unlike PPO's.
      clip_high: largest weight; absolute, unlike PPO's: 5 means 5, not 1 + 5.
      log_ratio_bound: clamp on |log ρ|, nats.

    Raises:
      ValueError: `clip_high` < 1, which would shrink every on-policy gradient.
    """
    if clip_high < 1:
        raise ValueError(f"CISPO's clip_high is an absolute cap on the weight, at least 1; got {clip_high}.")
    ratio = jnp.exp(log_ratio(logprobs, behaviour_logprobs, mask, bound=log_ratio_bound))
    weight = jax.lax.stop_gradient(jnp.clip(ratio, clip_low, clip_high))
    loss = -weight * _per_token(advantages, mask) * masked(logprobs, mask)
    return _output(loss, ratio, (ratio < clip_low) | (ratio > clip_high), mask)


def _pessimistic(ratio: Array, advantages: Array, clip_low: float, clip_high: float) -> tuple[Array, Array]:
    """The larger of the clipped and unclipped losses, and where the gradient was cut."""
    low, high = 1 - clip_low, 1 + clip_high
    loss = jnp.maximum(-ratio * advantages, -jnp.clip(ratio, low, high) * advantages)
    clipped = ((advantages > 0) & (ratio > high)) | ((advantages < 0) & (ratio < low))
    return loss, clipped


def _per_token(advantages: Array, mask: Array) -> Array:
    """Advantages of the shape of `mask`, constant, 0 outside it."""
    chex.assert_type(advantages, float)
    chex.assert_rank(advantages, {mask.ndim - 1, mask.ndim})
    chex.assert_shape(advantages, mask.shape[: advantages.ndim])
    spread = advantages if advantages.ndim == mask.ndim else advantages[..., None]
    return jax.lax.stop_gradient(masked(spread, mask))


def _output(loss: Array, ratio: Array, clipped: Array, mask: Array) -> SurrogateOutput:
    return SurrogateOutput(masked(loss, mask), jax.lax.stop_gradient(masked(ratio, mask)), clipped & mask)
