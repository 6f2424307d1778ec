"""From per-token losses to a number: what to divide by, and when.

Dividing early is the classic mistake: a mean of the means of micro-batches, devices or padded rows is not the
mean. Here a reduction returns `(sum, count)`. Both add over micro-batches and devices to what the whole batch
would have given, and `divide` is called once.

Example, two answers of 10 and 1000 tokens whose per-token losses are 1 and 0:

  "token"      10 / 1010             every token weighs the same: the long answer has 99 % of the gradient
  "sequence"   (1 + 0) / 2           every answer weighs the same: a short one's token weighs 100 times more
  "constant"   10 / (2 · budget)     every token weighs the same whatever the other answers' lengths are
"""

from typing import Literal, get_args

import chex
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.objectives.ratios import masked

Reduction = Literal["token", "sequence", "constant"]
SumCount = tuple[Float[Array, ""], Float[Array, ""]]


def reduce_tokens(
    loss: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    mode: Reduction,
    budget: int | None = None,
) -> SumCount:
    """Reduces a per-token loss to `(sum, count)`; the loss is `divide(sum, count)`.

    "token" sums tokens and counts them (DAPO, arXiv 2503.14476); "sequence" sums the means of completions and
    counts completions (GRPO, arXiv 2402.03300); "constant" sums tokens and counts `budget` for each
    completion (Dr. GRPO, arXiv 2503.20783). A completion without a token in the mask is in neither the sum
    nor the count.

    Args:
      loss: any per-token value; a row is one completion.
      mask: tokens that count. Values outside may be anything, NaN included.
      mode: what weighs the same.
      budget: tokens a completion is charged for under "constant", most often the longest completion allowed.
        The same for every micro-batch, hence never read off the shape.

    Raises:
      ValueError: unknown `mode`; `budget` missing under "constant".
    """
    chex.assert_equal_shape([loss, mask])
    chex.assert_type([loss, mask], [float, bool])
    if mode not in get_args(Reduction):
        raise ValueError(f"mode is one of {get_args(Reduction)}, got {mode!r}.")
    loss = masked(loss, mask)
    lengths = jnp.sum(mask, axis=-1).astype(loss.dtype)
    if mode == "token":
        return jnp.sum(loss), jnp.sum(lengths)
    sequences = jnp.sum((lengths > 0).astype(loss.dtype))
    if mode == "sequence":
        return jnp.sum(jnp.sum(loss, axis=-1) / jnp.maximum(lengths, 1)), sequences
    if budget is None:
        raise ValueError('mode="constant" divides by a token budget per completion: pass budget.')
    return jnp.sum(loss), sequences * budget


def divide(total: Float[Array, "*E"], count: Float[Array, "*E"]) -> Float[Array, "*E"]:
    """`total / count`, and 0 (gradient included) where `count` is 0: an empty batch has no loss, not NaN."""
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)
