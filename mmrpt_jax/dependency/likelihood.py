"""Counterfactual dependency: what changes in the model's predictions when the image is taken away?

"Without" is any blind state of the same sequence: a blank, blurred or foreign image, or image keys masked
out.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def log_likelihood_ratio(
    logprobs_with: Float[Array, "*E T"], logprobs_without: Float[Array, "*E T"]
) -> Float[Array, "*E T"]:
    """Computes each token's visual gain: log p(t | context, image) − log p(t | context, no image).

    The visual information gain by which arXiv 2602.17186 selects training tokens. Negative where the image
    speaks against the word, as it does for wrong captions.

    Args:
      logprobs_with: log-probabilities of the caption's tokens with the image, nats, ≤ 0.
      logprobs_without: the same tokens without the image.

    Returns:
      Gains in nats, float32.
    """
    return logprobs_with.astype(jnp.float32) - logprobs_without.astype(jnp.float32)


def kl_divergence(
    logits_with: Float[Array, "*E T V"], logits_without: Float[Array, "*E T V"]
) -> Float[Array, "*E T"]:
    """Computes the forward divergence KL(p_with ‖ p_without) = Σ_v p_with(v) log(p_with(v) / p_without(v)).

    Over the whole vocabulary, so it needs no reference word (the definition of VPPO, arXiv 2510.09285).

    Args:
      logits_with: unnormalised logits with the image; −inf bans an id.
      logits_without: the same positions without the image; an id possible only with it gives +inf.

    Returns:
      Divergences in nats, ≥ 0, float32.
    """
    log_p = jax.nn.log_softmax(logits_with.astype(jnp.float32))
    log_q = jax.nn.log_softmax(logits_without.astype(jnp.float32))
    p = jnp.exp(log_p)
    # An id that cannot occur adds nothing, whatever its log-ratio; selecting first keeps −inf − −inf out.
    log_ratio = jnp.where(p > 0, log_p, 0.0) - jnp.where(p > 0, log_q, 0.0)
    return jnp.sum(p * log_ratio, axis=-1)


def sampled_kl(
    logprobs_with: Float[Array, "*E T"],
    logprobs_without: Float[Array, "*E T"],
    *,
    max_log_ratio: float = 20.0,
    max_value: float = 10.0,
) -> Float[Array, "*E T"]:
    """Estimates KL(p_with ‖ p_without) from the sampled token alone.

    k3 = e^Δ − Δ − 1 with Δ = log p_without − log p_with. The estimator and both clamps are those of VPPO's
    released code (arXiv 2510.09285).

    Args:
      logprobs_with: log-probabilities of tokens sampled with the image, nats, ≤ 0.
      logprobs_without: the same tokens without the image.
      max_log_ratio: bound on |Δ|.
      max_value: upper bound of the estimate; large Δ > 0 would let one token outweigh all others.

    Returns:
      Estimates in [0, max_value] nats, float32.
    """
    delta = -log_likelihood_ratio(logprobs_with, logprobs_without)
    delta = jnp.clip(delta, -max_log_ratio, max_log_ratio)
    return jnp.clip(jnp.expm1(delta) - delta, 0.0, max_value)
