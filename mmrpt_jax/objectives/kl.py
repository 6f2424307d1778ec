"""Estimators of KL(π_θ ‖ π_ref) from sampled tokens, and which gradient each of them really gives.

With `ρ = π_ref(y_t) / π_θ(y_t)` on tokens drawn from π_θ (Schulman 2020, "Approximating KL Divergence"):

  k1 = -log ρ           unbiased value, may be negative
  k2 = ½ (log ρ)²       biased value, ≥ 0
  k3 = ρ - 1 - log ρ    unbiased value, ≥ 0

A good value is not a good gradient (arXiv 2506.09477, 2512.21852). Expected gradient, on policy:

  k1 in the loss     0: it does nothing but add noise
  k1 in the reward   that of the reverse KL, KL(π_θ ‖ π_ref)
  k2 in the loss     that of the reverse KL, KL(π_θ ‖ π_ref)
  k3 in the loss     that of the forward KL, KL(π_ref ‖ π_θ)
"""

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import log_ratio, masked

KLKind = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Array, "*E R"],
    ref_logprobs: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    kind: KLKind = "k3",
    log_ratio_bound: float = 20.0,
    value_bound: float = 10.0,
) -> Float[Array, "*E R"]:
    """Per-token KL estimate, nats; see the module for the formulas and their gradients.

    Args:
      logprobs: log-probabilities under π_θ, nats, ≤ 0. Gradients flow through these only.
      ref_logprobs: log-probabilities under the reference, nats, ≤ 0; held constant.
      mask: tokens that count. The result is 0 elsewhere, whatever the inputs are there.
      kind: the estimator. k2 and k3 are ≥ 0.
      log_ratio_bound: clamp on |log ρ|, nats, before the exponential.
      value_bound: clamp on the magnitude of the result, nats. A token at either bound passes no gradient.

    Raises:
      ValueError: unknown `kind`.
    """
    if kind not in get_args(KLKind):
        raise ValueError(f"kind is one of {get_args(KLKind)}, got {kind!r}.")
    k1 = log_ratio(logprobs, ref_logprobs, mask, bound=log_ratio_bound)
    if kind == "k1":
        estimate = k1
    elif kind == "k2":
        estimate = 0.5 * k1**2
    else:
        # expm1 keeps the small values, of which there are most, from cancelling to 0 or below.
        estimate = jnp.expm1(-k1) + k1
    return masked(jnp.clip(estimate, -value_bound, value_bound), mask)


def kl_penalised_rewards(
    rewards: Float[Array, "*E"],
    logprobs: Float[Array, "*E R"],
    ref_logprobs: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    coefficient: float,
    log_ratio_bound: float = 20.0,
) -> Float[Array, "*E"]:
    """Rewards less the KL of the whole completion: `r - coefficient · Σ_t k1_t`; a constant.

    Apply it before the advantages. Its policy gradient is that of the reverse KL.

    Args:
      rewards: one scalar reward per completion.
      logprobs: log-probabilities under the policy that sampled, nats, ≤ 0.
      ref_logprobs: log-probabilities under the reference, nats, ≤ 0.
      mask: tokens that count.
      coefficient: reward per nat, ≥ 0.
      log_ratio_bound: clamp on each token's k1, nats.
    """
    chex.assert_type(rewards, float)
    chex.assert_shape(rewards, mask.shape[:-1])
    k1 = log_ratio(logprobs, ref_logprobs, mask, bound=log_ratio_bound)
    return jax.lax.stop_gradient(rewards - coefficient * jnp.sum(k1, axis=-1))
