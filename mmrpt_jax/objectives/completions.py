"""Where a completion ends.

The end is the first end-of-sequence token, of which a model may have several. Nothing is inferred from the
padding id, which may be the same token.
"""

from collections.abc import Sequence

import chex
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def completion_mask(tokens: Int[Array, "*E R"], *, eos_ids: Sequence[int]) -> Bool[Array, "*E R"]:
    """Tokens up to and including the first end-of-sequence token; all of them, if there is none.

    Args:
      tokens: sampled tokens, with anything after the end.
      eos_ids: every id that ends a completion.
    """
    is_eos = _is_eos(tokens, eos_ids)
    ended_before = jnp.cumsum(is_eos, axis=-1) - is_eos
    return ended_before == 0


def truncated_completions(tokens: Int[Array, "*E R"], *, eos_ids: Sequence[int]) -> Bool[Array, "*E"]:
    """Completions that ran out of room: no token ends them.

    Out of the loss, in the baseline: `mask & ~truncated[..., None]` takes their tokens out of the loss and
    out of its count, while their rewards stay in the group's mean.

    Args:
      tokens: sampled tokens, with anything after the end.
      eos_ids: every id that ends a completion.
    """
    return ~jnp.any(_is_eos(tokens, eos_ids), axis=-1)


def _is_eos(tokens: Array, eos_ids: Sequence[int]) -> Array:
    chex.assert_type(tokens, int)
    return jnp.isin(tokens, jnp.asarray(eos_ids, tokens.dtype))
