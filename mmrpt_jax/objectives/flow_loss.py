"""GRPO for images: the clipped surrogate on the log densities of a flow's noisy steps.

`policy_loss` with K steps for tokens. A step has a density over thousands of dimensions instead of a probability,
so its KL to the reference is known exactly (`flow_kl`) and comes as an array. Steps that weigh nothing go out by
the mask:

  steps without noise            a window of noisy steps in an ODE (MixGRPO, arXiv 2507.21802), the last step
  groups that teach nothing      `mask & ~zero_variance_groups(rewards)[..., None, None]`, so that their images do
                                 not thin out the mean
"""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import masked
from mmrpt_jax.objectives.reductions import SumCount, reduce_tokens
from mmrpt_jax.objectives.surrogate import clipped_surrogate


def flow_policy_loss(
    logprobs: Float[Array, "*E K"],
    behaviour_logprobs: Float[Array, "*E K"],
    advantages: Float[Array, "*E"],
    mask: Bool[Array, "*E K"],
    *,
    clip_low: float = 1e-4,
    clip_high: float = 1e-4,
    max_advantage: float = 5.0,
    kl: Float[Array, "*E K"] | None = None,
    kl_coefficient: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumCount]]:
    """Flow-GRPO's loss to be minimised, as `(sum, count, metrics)` (arXiv 2505.05470).

    `-min(ρ A, clip(ρ, 1 - clip_low, 1 + clip_high) A) + β KL`, every step of the mask weighing the same. Sums and
    counts, those of the metrics included, add over micro-batches and devices; `divide` them at the end.

    The KL term acts on every step of the mask, those with advantage 0 included.

    Args:
      logprobs: `transition_logprobs` of the K steps under the policy in training, nats, of either sign.
      behaviour_logprobs: the same under the policy that sampled, reduced over dimensions in the same way.
      advantages: one per image, shared by its steps; held constant.
      mask: steps that are trained on. Inputs outside it may be anything.
      clip_low: how far below 1 the ratio may fall. The default goes with log densities averaged over dimensions.
      clip_high: how far above 1 it may rise.
      max_advantage: clamp on |A|, > 0.
      kl: KL of each step to the reference, of `flow_kl`; its gradient flows.
      kl_coefficient: β ≥ 0. With 0 the KL is measured only.

    Returns:
      The sum and the count, scalars, and the metrics "ratio", "clip_fraction" and, if given, "kl": means over
      steps, as `(sum, count)`.

    Raises:
      ValueError: `kl_coefficient` without `kl`.
    """
    chex.assert_shape(advantages, mask.shape[:-1])
    clamped = jnp.clip(advantages, -max_advantage, max_advantage)
    surrogate = clipped_surrogate(
        logprobs, behaviour_logprobs, clamped, mask, clip_low=clip_low, clip_high=clip_high
    )
    loss = surrogate.loss
    metrics = {"ratio": surrogate.ratio, "clip_fraction": surrogate.clipped.astype(loss.dtype)}
    if kl is not None:
        chex.assert_equal_shape([kl, mask])
        metrics["kl"] = masked(kl, mask)
        loss += kl_coefficient * metrics["kl"]
    elif kl_coefficient:
        raise ValueError(f"kl_coefficient={kl_coefficient} weighs a KL term: pass kl, as of flow_kl.")
    total, count = reduce_tokens(loss, mask, mode="token")
    means = {name: reduce_tokens(value, mask, mode="token") for name, value in metrics.items()}
    return total, count, jax.lax.stop_gradient(means)
