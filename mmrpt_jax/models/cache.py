"""A branch's own keys and values while it grows token by token."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Cache(NamedTuple):
    """Keys and values of one layer; slot `index` is written next.

    Attributes:
        keys: as `empty_slots` makes them.
        values: like `keys`.
        order: [B G R]; slots after the query are later in order, so they need no mask of their own.
        places: [B G R], where tokens have places.
    """

    keys: Float[Array, "*BKG R H"]
    values: Float[Array, "*BKG R H"]
    order: Int[Array, "B G R"]
    index: Int[Array, ""]
    places: Int[Array, "B G R"] | None = None


def empty_slots(shape: Sequence[int], dtype) -> Float[Array, "*BKG R H"]:
    """Keys or values of a cache [B K G R H], as they are carried from token to token: without leading axes of one.

    XLA drops those before it multiplies, and on CPU such a change of shape costs a copy of the whole cache per token.
    """
    return jnp.zeros(_without_ones(shape), dtype)


def grow(
    slots: Float[Array, "*BKG R H"], new: Float[Array, "B K G 1 H"], index: Int[Array, ""]
) -> tuple[Float[Array, "*BKG R H"], Float[Array, "B K G R H"]]:
    """Keys or values with a slot written: as they are carried, and as they are read."""
    slot = new.reshape(_without_ones(new.shape))
    grown = jax.lax.dynamic_update_slice_in_dim(slots, slot, index, axis=slots.ndim - 2)
    return grown, grown.reshape(*new.shape[:3], *slots.shape[-2:])


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return *(size for size in shape[:-2] if size > 1), *shape[-2:]
