"""Attention sinks: image patches that receive much attention whatever the word, and how to leave them out.

Visual attention sinks: Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models"
(arXiv 2503.03321). They find sinks by massive activations in fixed hidden dimensions of one model and show
that removing them changes no answer. Here they are found by their effect, in any model: a patch to which most
words attend far more than to the median patch. Give the same function mass measured on a blank image for a
content-free reading.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.dependency.thresholds import threshold as masked_threshold


def detect_sinks(
    mass: Float[Array, "*E T I"],
    *,
    threshold: float = 5.0,
    min_rows: float = 0.5,
    token_valid: Bool[Array, "*E T"] | None = None,
    patch_valid: Bool[Array, "*E I"] | None = None,
) -> Bool[Array, "*E I"]:
    """Marks patches that receive more than `threshold` × the row's median in `min_rows` of the rows or more.

    Args:
      mass: attention mass of each token on each patch, averaged over layers and heads, ≥ 0. Mass received in
        sum (`received[..., None, :]`) is the cheap form with a single row.
      threshold: multiple of the median over the row's patches.
      min_rows: share of the valid rows in (0, 1] that must agree; what makes a sink different from a
        looked-at object.
      token_valid: rows that count; all if None.
      patch_valid: patches that exist; all if None.

    Returns:
      True for sinks; all False where no row is valid.
    """
    rows = jnp.ones(mass.shape[:-1], bool) if token_valid is None else token_valid
    patches = jnp.ones(mass.shape[:-2] + mass.shape[-1:], bool) if patch_valid is None else patch_valid
    cells = jnp.broadcast_to(patches[..., None, :], mass.shape)
    median = masked_threshold(mass, cells, kind="quantile", quantile=0.5)
    above = (mass > threshold * median[..., None]) & rows[..., None]
    num_rows = rows.sum(axis=-1)[..., None]
    return (above.sum(axis=-2) >= min_rows * num_rows) & (num_rows > 0) & patches


def sink_regions(
    image: Bool[Array, "*E S"], text: Bool[Array, "*E S"], sinks: Bool[Array, "*E I"]
) -> Float[Array, "*E S 3"]:
    """Builds the indicator columns (image without sinks, sinks, text) for `region_mass`.

    Feed the masses to `visual_dependency`: `(mass[..., 0], mass[..., 2])` drops the sink keys from numerator
    and denominator, `(mass[..., 0], mass[..., 1] + mass[..., 2])` from the numerator alone.

    Args:
      image: True for image keys; the i-th of them is patch i.
      text: True for the text keys of the denominator.
      sinks: True for sink patches.

    Returns:
      Columns of 0 and 1; a key in neither region has a zero row.
    """
    patch = jnp.clip(jnp.cumsum(image, axis=-1) - 1, 0, sinks.shape[-1] - 1)
    is_sink = image & jnp.take_along_axis(sinks, patch, axis=-1)
    return jnp.stack([image & ~is_sink, is_sink, text], axis=-1).astype(jnp.float32)


def remove_sinks(
    patch_mass: Float[Array, "*E T N I"], sinks: Bool[Array, "*#E I"]
) -> tuple[Float[Array, "*E T N"], Float[Array, "*E T N"]]:
    """Splits per-patch mass into the visual mass without sinks and the mass on sinks.

    `visual_dependency(visual, text)` of the first leaves sinks out of numerator and denominator;
    `visual_dependency(visual, text + sink)` leaves them out of the numerator alone.

    Args:
      patch_mass: attention mass of each token and head on each patch.
      sinks: True for sink patches, of the same sequence (leading axes broadcast, such as a layer axis).

    Returns:
      (visual, sink), which add up to the mass on the whole image.
    """
    is_sink = sinks[..., None, None, :]
    return jnp.where(is_sink, 0.0, patch_mass).sum(axis=-1), jnp.where(is_sink, patch_mass, 0.0).sum(axis=-1)
