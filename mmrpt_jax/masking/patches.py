"""Which patches of the image to hide, as an option beside hidden text and to make blind states."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt8

# Mid-grey: next to zero after normalisation.
GREY = 127


def top_patch_mask(
    received: Float[Array, "*E I"], ratio: float, *, valid: Bool[Array, "*E I"] | None = None
) -> Bool[Array, "*E I"]:
    """Marks the share `ratio` of patches that received the most attention mass.

    Exactly round(ratio · number of valid patches) of each image; the earlier of equal patches first.

    Args:
      received: attention mass per patch, or any score.
      ratio: share to mark, in [0, 1].
      valid: patches that exist; all if None.

    Returns:
      True for the patches to hide.
    """
    valid = jnp.ones(received.shape, bool) if valid is None else valid
    order = jnp.argsort(jnp.where(valid, -received, jnp.inf), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    return rank < jnp.round(ratio * valid.sum(axis=-1, keepdims=True))


def random_patch_mask(
    key: Key[Array, ""], shape: Sequence[int], ratio: float, *, valid: Bool[Array, "*E I"] | None = None
) -> Bool[Array, "*E I"]:
    """Marks the share `ratio` of patches, uniformly at random and independently for each image.

    Exactly round(ratio · number of valid patches) of each image, where PAPO (arXiv 2507.06448) and VPPO
    (arXiv 2510.09285) draw each patch on its own, at rates of 0.6 and 0.5.

    Args:
      key: a typed PRNG key.
      shape: leading axes and number of patches, "*E I".
      ratio: share to mark, in [0, 1].
      valid: patches that exist; all if None.

    Returns:
      True for the patches to hide.
    """
    return top_patch_mask(jax.random.uniform(key, tuple(shape)), ratio, valid=valid)


def hide_patches(
    image: UInt8[np.ndarray, "h w 3"], hidden: Bool[np.ndarray, " I"], patch_size: int, *, value: int = GREY
) -> UInt8[np.ndarray, "h w 3"]:
    """Paints square patches of an image in one grey, on the host.

    Args:
      image: height and width are multiples of `patch_size`.
      hidden: True for the patches to paint, row by row.
      patch_size: side of a patch, pixels.
      value: the grey, 0 to 255.

    Raises:
      ValueError: the number of patches is not that of the image.
    """
    rows, columns = image.shape[0] // patch_size, image.shape[1] // patch_size
    if hidden.size != rows * columns:
        raise ValueError(f"an image of {rows} x {columns} patches cannot hide {hidden.size} of them.")
    painted = np.kron(hidden.reshape(rows, columns), np.ones((patch_size, patch_size), bool))
    return np.where(painted[..., None], np.uint8(value), image)
