"""What the flow objectives share: how numbers per image meet latents, and how latents become numbers per image.

Latents are `[*E, I, C]`: I image tokens of C channels. Times, noise levels and masks are numbers per image, of
shape `[*E]` or any that broadcasts to it, such as one time for the whole batch.
"""

from typing import Literal, get_args

import chex
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import masked
from mmrpt_jax.objectives.reductions import SumCount, reduce_tokens

LatentReduction = Literal["mean", "sum"]


def per_image(values: Float[Array, "*#E"], latents: Float[Array, "*E I C"]) -> Float[Array, "*#E 1 1"]:
    """Returns numbers per image in float32 or wider, so shaped that they broadcast against `latents`."""
    values = jnp.asarray(values)
    chex.assert_is_broadcastable(values.shape, latents.shape[:-2])
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))[..., None, None]


def masked_latents(
    latents: Float[Array, "*E I C"], mask: Bool[Array, "*#E"] | None = None
) -> Float[Array, "*E I C"]:
    """`masked` for images: 0 where `mask` is false, in float32 or wider; everything counts without a mask."""
    if mask is None:
        return masked(latents, jnp.ones((), bool))
    chex.assert_type(mask, bool)
    chex.assert_is_broadcastable(mask.shape, latents.shape[:-2])
    return masked(latents, mask[..., None, None])


def reduce_latents(values: Float[Array, "*E I C"], *, reduce: LatentReduction = "mean") -> Float[Array, "*E"]:
    """Mean or sum over the I · C dimensions of an image.

    Raises:
      ValueError: unknown `reduce`.
    """
    if reduce not in get_args(LatentReduction):
        raise ValueError(f"reduce is one of {get_args(LatentReduction)}, got {reduce!r}.")
    return jnp.mean(values, axis=(-2, -1)) if reduce == "mean" else jnp.sum(values, axis=(-2, -1))


def reduce_images(loss: Float[Array, "*E"], mask: Bool[Array, "*E"]) -> SumCount:
    """`(sum, count)` of a loss per image, in which every image of the mask weighs the same."""
    return reduce_tokens(loss[..., None], mask[..., None], mode="token")
