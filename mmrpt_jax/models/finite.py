"""Arrays that hold no numbers: NaN or infinity, which would spread from a parameter through the whole model."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def check_finite(tree: Any, place: object, advice: str) -> None:
    """Checks that what was read holds numbers.

    Args:
        tree: of arrays.
        place: where they come from, for the error.
        advice: what to make of it, the end of the error's sentence.

    Raises:
        ValueError: names the first array that holds NaN or infinity.
    """
    if poisoned := not_finite(tree):
        first = f"{poisoned[0]} is the first of {len(poisoned)} arrays"
        raise ValueError(f"{place} holds numbers that are not finite ({first}): {advice}")


def not_finite(tree: Any) -> list[str]:
    """Paths of the arrays that hold NaN or infinity, such as `decoder/norm/scale`."""
    named = jax.tree_util.tree_leaves_with_path(tree)
    finite = jax.device_get(_all_finite([leaf for _, leaf in named]))
    poisoned = [path for (path, _), sound in zip(named, finite, strict=True) if not sound]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in poisoned]


@jax.jit
def _all_finite(leaves: Sequence[Array]) -> list[Bool[Array, ""]]:
    return [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]
