"""DiffusionNFT: reinforcement on freshly noised images, without a density and for any sampler (arXiv 2509.16117).

Half-way between imitating a good image and shunning a bad one. The policy's step away from the one that sampled is
taken once forwards and once mirrored, and an image pulls on either according to its advantage:

  r  = ½ + ½ clip(A / max_advantage, -1, 1)                 in [0, 1]
  v± = v_old ± b (v - v_old),   x_0± = x_t - t v±
  loss = (r |x_0+ - x_0|² / w+ + (1 - r) |x_0- - x_0|² / w-) / b

`|·|²` is the mean over dimensions and w the mean of `|x_0± - x_0|`, held constant, which evens the times out. At
`v = v_old` the gradient is `2 t (1 - 2 r) sign(x_0 error)` in one dimension: it vanishes with the advantage and
does not depend on b.
"""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.flow_schedule import predict_clean
from mmrpt_jax.objectives.latents import masked_latents, reduce_images, reduce_latents
from mmrpt_jax.objectives.ratios import masked
from mmrpt_jax.objectives.reductions import SumCount


def nft_loss(
    velocity: Float[Array, "*E I C"],
    behaviour_velocity: Float[Array, "*E I C"],
    noised: Float[Array, "*E I C"],
    clean: Float[Array, "*E I C"],
    times: Float[Array, "*E"],
    advantages: Float[Array, "*E"],
    mask: Bool[Array, "*E"],
    *,
    beta: float = 1.0,
    max_advantage: float = 5.0,
    min_weight: float = 1e-5,
    kl: Float[Array, "*E"] | None = None,
    kl_coefficient: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""], dict[str, SumCount]]:
    """DiffusionNFT's loss to be minimised, as `(sum, count, metrics)`; see the module for the formula.

    Its authors' code multiplies all but the KL term by `max_advantage`; here that is left to the learning rate and
    `kl_coefficient`.

    Args:
      velocity: v of the policy in training at `noised`. Gradients flow through it, and `kl`, only.
      behaviour_velocity: v_old of the policy that sampled, there an exponential average of the trained one.
      noised: x_t, `interpolate` of `clean` and fresh noise.
      clean: x_0, the sampled images.
      times: t in (0, 1].
      advantages: one per image.
      mask: images that are trained on. Inputs outside it may be anything.
      beta: b > 0, how far the mirrored policies stand apart; published with 1 and 0.1.
      max_advantage: the advantage from which an image is wholly good, or bad.
      min_weight: lower bound of w, > 0.
      kl: KL of each image to the reference, as `flow_kl` of kind "velocity"; its gradient flows.
      kl_coefficient: ≥ 0. With 0 the KL is measured only.

    Returns:
      The sum and the count, scalars, and the metrics "optimality" (r), "positive_error" and "negative_error"
      (mean squares of the errors in x_0), "velocity_change" (mean square of `v - v_old`) and, if given, "kl":
      means over images, as `(sum, count)`.

    Raises:
      ValueError: `beta` is not positive, or `kl_coefficient` without `kl`.
    """
    if beta <= 0:
        raise ValueError(f"beta is the size of the step that is mirrored and positive, got {beta}.")
    if kl is None and kl_coefficient:
        raise ValueError(f"kl_coefficient={kl_coefficient} weighs a KL term: pass kl, as of flow_kl.")
    chex.assert_equal_shape([velocity, behaviour_velocity, noised, clean])
    chex.assert_shape([times, advantages, mask], velocity.shape[:-2])
    velocity, old, noised, clean = (
        masked_latents(x, mask) for x in (velocity, behaviour_velocity, noised, clean)
    )
    old, noised, clean, times = jax.lax.stop_gradient((old, noised, clean, masked(times, mask)))
    optimality = _optimality(masked(advantages, mask), max_advantage)

    def error_and_loss(mirrored: Array) -> tuple[Array, Array]:
        gap = predict_clean(noised, mirrored, times) - clean
        weight = jnp.maximum(reduce_latents(jnp.abs(gap)), min_weight)
        error = reduce_latents(jnp.square(gap))
        return error, error / jax.lax.stop_gradient(weight)

    change = velocity - old
    positive_error, positive = error_and_loss(old + beta * change)
    negative_error, negative = error_and_loss(old - beta * change)
    loss = (optimality * positive + (1 - optimality) * negative) / beta
    metrics = {
        "optimality": optimality,
        "positive_error": positive_error,
        "negative_error": negative_error,
        "velocity_change": reduce_latents(jnp.square(change)),
    }
    if kl is not None:
        chex.assert_equal_shape([kl, mask])
        metrics["kl"] = masked(kl, mask)
        loss += kl_coefficient * metrics["kl"]
    means = {name: reduce_images(value, mask) for name, value in metrics.items()}
    return *reduce_images(loss, mask), jax.lax.stop_gradient(means)


def _optimality(advantages: Array, max_advantage: float) -> Array:
    """How far an image counts as good: 0 to 1, ½ for an average one."""
    return jax.lax.stop_gradient(0.5 + 0.5 * jnp.clip(advantages / max_advantage, -1, 1))
