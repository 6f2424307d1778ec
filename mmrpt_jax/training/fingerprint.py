"""A number per array by which damage is found: a file that can still be read may not hold what was written."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def fingerprint(tree: Any) -> UInt32[np.ndarray, " leaves"]:
    """The sum of the bits of every array, word by word, modulo 2^32.

    It is exact in any order, and so the same however an array lies over devices; a single changed bit changes it.
    """
    return np.asarray(jax.device_get(_sums(jax.tree.leaves(tree))), np.uint32)


@jax.jit
def _sums(leaves: Sequence[Array]) -> list[UInt32[Array, ""]]:
    return [jnp.sum(_words(leaf), dtype=jnp.uint32) for leaf in leaves]


def _words(leaf: Array) -> Array:
    if leaf.dtype == bool:
        return leaf
    return jax.lax.bitcast_convert_type(leaf, _WORDS[leaf.dtype.itemsize])
