"""The published policy losses as combinations of the parts in this room.

  loss = reduce(w · surrogate + β · KL - η · entropy)

A variant is a surrogate with its clip range, a reduction and an advantage scale; a new one is a `Variant` of
your own.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.advantages import Scale
from mmrpt_jax.objectives.kl import kl_estimate
from mmrpt_jax.objectives.reductions import Reduction, SumCount, reduce_tokens
from mmrpt_jax.objectives.surrogate import Surrogate, cispo_surrogate, clipped_surrogate, gspo_surrogate


@dataclasses.dataclass(frozen=True)
class Variant:
    """A policy loss as its paper combines it.

    Attributes:
      surrogate: the per-token loss, its clip range included.
      reduction: what the loss is divided by.
      scale: the `scale` of `group_advantages` that goes with it. Not applied here: advantages are an input.
    """

    surrogate: Surrogate
    reduction: Reduction
    scale: Scale


_clip_higher = functools.partial(clipped_surrogate, clip_low=0.2, clip_high=0.28)

VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "grpo": Variant(clipped_surrogate, "sequence", "group"),
        "dr_grpo": Variant(clipped_surrogate, "constant", "none"),
        "dapo": Variant(_clip_higher, "token", "group"),
        "gspo": Variant(gspo_surrogate, "sequence", "group"),
        "cispo": Variant(cispo_surrogate, "token", "group"),
    }
)


def policy_loss(
    logprobs: Float[Array, "*E R"],
    behaviour_logprobs: Float[Array, "*E R"],
    advantages: Float[Array, "*E"] | Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    variant: str | Variant = "grpo",
    clip_low: float | None = None,
    clip_high: float | None = None,
    budget: int | None = None,
    token_weights: Float[Array, "*E R"] | None = None,
    ref_logprobs: Float[Array, "*E R"] | None = None,
    kl: Literal["none", "k2", "k3"] = "none",
    kl_coefficient: float = 0.0,
    kl_mask: Bool[Array, "*E R"] | None = None,
    entropy: Float[Array, "*E R"] | None = None,
    entropy_coefficient: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumCount]]:
    """A policy loss to be minimised, as `(sum, count, metrics)`.

    Sums and counts, those of the metrics included, add over micro-batches and devices; `divide` them at the
    end.

    The KL term acts on every token of the mask, those with advantage 0 included. `kl_mask` takes it off them
    (or others) and leaves the count as it is; to leave zero-variance groups out altogether, take them out of
    `mask`.

    Args:
      logprobs: log-probabilities under the policy in training, nats, ≤ 0.
      behaviour_logprobs: the same under the policy the clip range is measured from; on policy, `logprobs`
        itself.
      advantages: one per completion or one per token.
      mask: tokens that are trained on. Inputs outside it may be anything.
      variant: a key of `VARIANTS`, or a `Variant`.
      clip_low: in place of the variant's; what it means is the surrogate's to say.
      clip_high: in place of the variant's.
      budget: tokens per completion, for variants with the "constant" reduction.
      token_weights: multiplies the surrogate, e.g. `importance_weights`.
      ref_logprobs: log-probabilities under the reference, nats, ≤ 0; required unless `kl="none"`.
      kl: estimator in the loss. k1 is not offered: its expected gradient is 0 (use `kl_penalised_rewards`).
      kl_coefficient: β ≥ 0. With 0 the KL is measured only.
      kl_mask: tokens of the mask that carry the KL term; all, if not given.
      entropy: entropy of the policy at each token, nats, ≥ 0.
      entropy_coefficient: η. With 0 the entropy is measured only.

    Returns:
      The sum and the count, scalars, and the metrics "ratio", "clip_fraction" and, if their inputs were
      given, "kl" and "entropy": means over tokens, as `(sum, count)`.

    Raises:
      ValueError: unknown `variant` or `kl`; `ref_logprobs` missing.
    """
    chosen = _variant(variant)
    clip = {k: v for k, v in (("clip_low", clip_low), ("clip_high", clip_high)) if v is not None}
    surrogate = chosen.surrogate(logprobs, behaviour_logprobs, advantages, mask, **clip)
    loss = surrogate.loss if token_weights is None else surrogate.loss * jax.lax.stop_gradient(token_weights)
    metrics = {"ratio": surrogate.ratio, "clip_fraction": surrogate.clipped.astype(loss.dtype)}
    if kl != "none":
        metrics["kl"] = _kl(logprobs, ref_logprobs, mask, kl)
        carried = metrics["kl"] if kl_mask is None else jnp.where(kl_mask, metrics["kl"], 0)
        loss += kl_coefficient * carried
    if entropy is not None:
        metrics["entropy"] = entropy
        loss -= entropy_coefficient * entropy
    total, count = reduce_tokens(loss, mask, mode=chosen.reduction, budget=budget)
    means = {name: reduce_tokens(value, mask, mode="token") for name, value in metrics.items()}
    return total, count, jax.lax.stop_gradient(means)


def _variant(variant: str | Variant) -> Variant:
    if isinstance(variant, Variant):
        return variant
    if variant not in VARIANTS:
        raise ValueError(f"variant is one of {tuple(VARIANTS)} or a Variant, got {variant!r}.")
    return VARIANTS[variant]


def _kl(logprobs: Array, ref_logprobs: Array | None, mask: Array, kl: Literal["k2", "k3"]) -> Array:
    if kl not in ("k2", "k3"):
        raise ValueError(f'kl is one of "none", "k2", "k3", got {kl!r}; k1 belongs in the reward.')
    if ref_logprobs is None:
        raise ValueError(f'kl="{kl}" compares with a reference policy: pass ref_logprobs.')
    return kl_estimate(logprobs, ref_logprobs, mask, kind=kl)
