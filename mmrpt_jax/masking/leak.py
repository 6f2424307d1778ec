"""Which items are worth training on?  Drop what needs no image, and what is always or never solved."""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


def keep_unsolved(blind_scores: Float[ArrayT, "*E"], *, max_blind: float) -> Bool[ArrayT, "*E"]:
    """Keeps the items that a model without the image does not solve: blind score ≤ max_blind.

    The rest of a caption can give the answer away (repetition, agreement, a correlated attribute); such items
    reward reading, not looking.

    Args:
      blind_scores: one score per item, the higher the better solved: share of k samples that match exactly
        without the image, or the log-probability of the hidden span without it.
      max_blind: the highest score kept, in the scores' unit.

    Returns:
      True for items to keep; NaN (not measured) is not kept.
    """
    return blind_scores <= max_blind


def keep_learnable(
    pass_rate: Float[ArrayT, "*E"], *, low: float = 0.01, high: float = 0.99
) -> Bool[ArrayT, "*E"]:
    """Keeps the items of useful difficulty: low ≤ pass rate ≤ high.

    A group of equal rewards has zero advantage: with fewer than 100 samples an item, the defaults leave out
    just the items that are always or never solved (dynamic sampling of DAPO, arXiv 2503.14476).

    Args:
      pass_rate: share of k samples solved with the image, in [0, 1].
      low: lowest rate kept.
      high: highest rate kept.

    Returns:
      True for items to keep; NaN (not measured) is not kept.
    """
    return (pass_rate >= low) & (pass_rate <= high)
