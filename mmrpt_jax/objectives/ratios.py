"""The log-probability ratio of two policies, made safe at its two edges: masked tokens and overflow."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked(x: Float[Array, "*E R"], mask: Bool[Array, "*E R"]) -> Float[Array, "*E R"]:
    """Returns `x` where `mask` is true and 0 elsewhere, in float32 or wider.

    What stands outside the mask may be infinite or NaN: it reaches neither the value nor the gradient,
    because the selection happens before any arithmetic.
    """
    return jnp.where(mask, x, 0).astype(jnp.promote_types(x.dtype, jnp.float32))


def log_ratio(
    logprobs: Float[Array, "*E R"],
    other_logprobs: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    bound: float = 20.0,
) -> Float[Array, "*E R"]:
    """Per-token log ratio `log π(y_t) - log π'(y_t)`, clamped to ±`bound`.

    The clamp keeps `exp` finite in float32; a token at the bound passes no gradient.

    Args:
      logprobs: log-probabilities under π, nats, ≤ 0. Gradients flow through these only.
      other_logprobs: log-probabilities under π', nats, ≤ 0; held constant.
      mask: tokens that count. The result is 0 elsewhere, whatever the inputs are there.
      bound: largest magnitude of the result, nats.
    """
    chex.assert_equal_shape([logprobs, other_logprobs, mask])
    chex.assert_type([logprobs, other_logprobs, mask], [float, float, bool])
    difference = masked(logprobs, mask) - jax.lax.stop_gradient(masked(other_logprobs, mask))
    return jnp.clip(difference, -bound, bound)
