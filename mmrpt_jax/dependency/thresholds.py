"""Adaptive thresholds: how high must a score be, within its own caption, to count as vision-dependent?

MMRPT calls its τ adaptive without publishing the rule; the four kinds here are choices of this library.
"""

from types import ModuleType
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)
ThresholdKind = Literal["quantile", "mean_std", "otsu", "fixed"]


def threshold(
    scores: Float[ArrayT, "*E T"],
    valid: Bool[ArrayT, "*E T"],
    *,
    kind: ThresholdKind = "quantile",
    quantile: float = 0.7,
    num_std: float = 1.0,
    value: float = 0.5,
) -> Float[ArrayT, "*E"]:
    """Computes one threshold per caption from its valid scores; a unit is selected iff score ≥ threshold.

    NumPy in, NumPy out, so that host code does not compile once per caption length.

    Args:
      scores: finite dependency scores along the last axis.
      valid: the scores that count.
      kind: "quantile" (linear interpolation, as NumPy), "mean_std" (mean + num_std · population standard
        deviation), "otsu" (the smallest score of the upper of the two classes with the largest variance
        between them; equal scores are one class), or "fixed".
      quantile: level in [0, 1] for kind="quantile".
      num_std: number of standard deviations for kind="mean_std".
      value: the threshold for kind="fixed".

    Returns:
      Thresholds; +inf where no score is valid, so nothing is selected.

    Raises:
      ValueError: for an unknown kind.
    """
    xp: ModuleType = jnp if isinstance(scores, jax.Array) else np
    scores, valid = xp.asarray(scores, float), xp.asarray(valid, bool)
    count = valid.sum(axis=-1)
    if scores.shape[-1] == 0:
        return xp.full(scores.shape[:-1], xp.inf)
    if kind == "quantile":
        tau = _masked_quantile(xp, scores, valid, count, quantile)
    elif kind == "mean_std":
        tau = _mean_std(xp, scores, valid, count, num_std)
    elif kind == "otsu":
        tau = _otsu(xp, scores, valid, count)
    elif kind == "fixed":
        tau = xp.full(scores.shape[:-1], value, scores.dtype)
    else:
        raise ValueError(f"kind={kind!r}: use 'quantile', 'mean_std', 'otsu' or 'fixed'.")
    return xp.where(count > 0, tau, xp.inf)


def _sorted_valid_first(xp: ModuleType, scores: Any, valid: Any) -> Any:
    """Sorts the valid scores upwards and fills the tail with the largest of them, to keep it finite."""
    ordered = xp.sort(xp.where(valid, scores, xp.inf), axis=-1)
    largest = xp.max(xp.where(valid, scores, -xp.inf), axis=-1, keepdims=True)
    return xp.minimum(ordered, xp.where(xp.isfinite(largest), largest, 0.0))


def _masked_quantile(xp: ModuleType, scores: Any, valid: Any, count: Any, level: float) -> Any:
    ordered = _sorted_valid_first(xp, scores, valid)
    position = (level * xp.maximum(count - 1, 0)).astype(scores.dtype)[..., None]
    below = xp.floor(position).astype(int)
    low = xp.take_along_axis(ordered, below, axis=-1)
    high = xp.take_along_axis(ordered, xp.ceil(position).astype(int), axis=-1)
    return (low + (position - below) * (high - low))[..., 0]


def _mean_std(xp: ModuleType, scores: Any, valid: Any, count: Any, num_std: float) -> Any:
    total = xp.maximum(count, 1)
    # Measured from the smallest score, the mean of equal scores is exact, and all of them are selected.
    low = _sorted_valid_first(xp, scores, valid)[..., 0]
    above = xp.where(valid, scores - low[..., None], 0.0)
    mean = above.sum(axis=-1) / total
    deviation = xp.where(valid, above - mean[..., None], 0.0)
    return low + mean + num_std * xp.sqrt((deviation**2).sum(axis=-1) / total)


def _otsu(xp: ModuleType, scores: Any, valid: Any, count: Any) -> Any:
    """Tries every split of the sorted scores; the split before position i puts i scores below."""
    ordered = _sorted_valid_first(xp, scores, valid)
    position = xp.arange(scores.shape[-1])
    # Centred scores keep the cumulative sums small.
    centred = xp.where(position < count[..., None], ordered - ordered[..., :1], 0.0)
    lower_sum = xp.cumsum(centred, axis=-1) - centred
    upper_sum = centred.sum(axis=-1, keepdims=True) - lower_sum
    upper_count = count[..., None] - position
    is_split = (position > 0) & (upper_count > 0) & (ordered > xp.roll(ordered, 1, axis=-1))
    gap = upper_sum / xp.maximum(upper_count, 1) - lower_sum / xp.maximum(position, 1)
    between = xp.where(is_split, position * upper_count * gap**2, 0.0)
    best = xp.argmax(between, axis=-1)[..., None]
    return xp.take_along_axis(ordered, best, axis=-1)[..., 0]
