"""Do two scorings agree?  Rank correlation between scorings, and AUC against known labels (NumPy, host)."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def average_ranks(values: ArrayLike) -> Float[np.ndarray, " D"]:
    """Ranks values from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Computes Spearman's rank correlation: Pearson's correlation of the average ranks (Spearman, 1904).

    Args:
      first: scores of the units.
      second: other scores of the same units.

    Returns:
      Correlation in [-1, 1]; NaN for fewer than two units or constant scores.

    Raises:
      ValueError: if the lengths differ.
    """
    a, b = average_ranks(first), average_ranks(second)
    if a.shape != b.shape:
        raise ValueError(f"spearman needs two scores per unit, got shapes {a.shape} and {b.shape}.")
    if a.size < 2:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Computes the area under the ROC curve: P(positive scores above negative), ties one half.

    By rank sums (Mann & Whitney, 1947): (R₊ − n₊(n₊ + 1)/2) / (n₊ n₋), where R₊ adds the positives' ranks.

    Args:
      scores: dependency scores of the units.
      labels: truth per unit, 0 or 1 (does the unit need the image?).

    Returns:
      Area in [0, 1], 0.5 for chance; NaN if a class is missing.

    Raises:
      ValueError: if the lengths differ.
    """
    ranks, positive = average_ranks(scores), np.asarray(labels).astype(bool)
    if ranks.shape != positive.shape:
        raise ValueError(f"auc needs one label per score, got shapes {ranks.shape} and {positive.shape}.")
    num_positive = int(positive.sum())
    num_negative = positive.size - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    rank_sum = ranks[positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))
