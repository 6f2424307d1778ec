"""The colour scale of dependency: from paper white to deep plum, darker the more the image is needed."""

import numpy as np
from jaxtyping import Float, UInt8

# Anchors of even steps in lightness (CIE L* from 97 down to 25), so that equal steps of score look equal.
_ANCHORS = np.array(
    [
        (251, 246, 235),
        (252, 214, 155),
        (247, 175, 96),
        (237, 134, 74),
        (215, 99, 80),
        (183, 67, 95),
        (142, 45, 107),
        (93, 34, 101),
    ],
    dtype=np.float64,
)


def dependency_colours(levels: Float[np.ndarray, "*E"]) -> UInt8[np.ndarray, "*E 3"]:
    """Colours (sRGB, 0 to 255) of levels in [0, 1]; levels outside are clipped to the ends of the scale."""
    positions = np.linspace(0.0, 1.0, len(_ANCHORS))
    channels = [np.interp(levels, positions, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def normalise(scores: Float[np.ndarray, "*E"]) -> tuple[Float[np.ndarray, "*E"], float, float]:
    """Scores on the scale from their minimum (level 0) to their maximum (level 1), with the two.

    NaN, the mark of a word that was not scored, stays NaN; scores that are all equal get level 0.

    Raises:
        ValueError: no score is finite, or one is infinite.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).all() or np.isinf(scores).any():
        raise ValueError("overlay: scores must hold at least one finite number and none that is infinite")
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    return rescale(scores, low, high), low, high


def rescale(scores: Float[np.ndarray, "*E"], low: float, high: float) -> Float[np.ndarray, "*E"]:
    """Levels of scores on the scale from `low` (level 0) to `high` (level 1); level 0 where the two are equal."""
    return (np.asarray(scores, np.float64) - low) / (high - low if high > low else 1.0)


def lightness(rgb: UInt8[np.ndarray, "*E 3"]) -> Float[np.ndarray, "*E"]:
    """CIE L* in [0, 100] of sRGB colours (IEC 61966-2-1, D65 white)."""
    encoded = np.asarray(rgb, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)
