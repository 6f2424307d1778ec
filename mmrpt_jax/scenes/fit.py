"""Which shape an opacity map shows: centre and radius from its moments, the shape from the best overlap.

Places and sizes between those of the renderer are found as well as its own, since a model that paints does not keep
to the pixel grid.
"""

import functools
from typing import NamedTuple

import numpy as np

from mmrpt_jax.scenes.render import inside
from mmrpt_jax.scenes.world import RADIUS, SHAPES

BLURS = (0.0, 1.0, 1.6)
"""Standard deviations, in pixels, of the Gaussian blurs that shapes are tried with."""
SURE_OVERLAP = 0.93
"""An overlap that no stronger blur needs to better."""
MARGIN = 3
"""How far, in pixels, the strongest blur carries what can be seen of a shape."""
RADIUS_RANGE = (0.85 * min(RADIUS.values()), 1.2 * max(RADIUS.values()))
"""Radii that count. Others are tried too, so that what is too large for one shape does not pass for another."""

_SUPERSAMPLING = 4
_PIXEL_VARIANCE = 1.0 / 12.0
_SAME_RADIUS = 0.03
_TRIED_RANGE = (0.5 * min(RADIUS.values()), 1.5 * max(RADIUS.values()))


class Fit(NamedTuple):
    """A shape at `(x, y)`, in pixels from the top left corner, and its overlap with the map, in [0, 1]."""

    overlap: float
    shape: str
    x: float
    y: float
    radius: float


def best_fit(alpha: np.ndarray, *, min_opacity: float) -> Fit | None:
    """The shape that overlaps most with an opacity map `[H, W]` in [0, 1], or `None` if its size does not count.

    With m the mass Σ a, c the centre of mass and v the mean of the variances of rows and columns, weighed by a, a
    shape whose unit form has the area A, the centre of mass (0, u) and the variance w has, under blur b, the
    radius `√((v - 1/12 - b²) / w)`, whatever its opacity, or `√(m / A)`, if it is opaque, which noise disturbs less;
    both are tried. Drawn at `c - (0, u r)` and blurred it is s, of the opacity `o = Σ a s / Σ s²`, at most 1; below
    `min_opacity` it does not count. `overlap = Σ min(a, o s) / Σ max(a, o s)`.
    """
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    window = alpha[top : rows[-1] + 1 + MARGIN, left : columns[-1] + 1 + MARGIN]
    y, x = (np.arange(length) + 0.5 for length in window.shape)
    mass = window.sum()
    center_y, center_x = window.sum(axis=1) @ y / mass, window.sum(axis=0) @ x / mass
    squares = window.sum(axis=1) @ (y - center_y) ** 2 + window.sum(axis=0) @ (x - center_x) ** 2
    variance = squares / mass / 2 - _PIXEL_VARIANCE
    best = None
    for blur in BLURS:
        for shape in SHAPES:
            low = _unit_moments(shape)[1]
            for radius in _radii(shape, mass, variance - blur**2):
                stamp = _drawn(shape, center_x, center_y - low * radius, radius, blur, window.shape)
                overlap = _overlap(window, stamp, min_opacity)
                if overlap > (best.overlap if best else 0.0):
                    best = Fit(overlap, shape, left + center_x, top + center_y - low * radius, radius)
        if best and best.overlap >= SURE_OVERLAP:
            break
    return best if best and RADIUS_RANGE[0] <= best.radius <= RADIUS_RANGE[1] else None


@functools.cache
def _unit_moments(shape: str) -> tuple[float, float, float]:
    """Area, how far the centre of mass lies below the centre, and mean variance of a shape with radius 1."""
    ticks = (np.arange(400) + 0.5) / 200 - 1.0
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    covered = inside(shape, x, y)
    variance = (y[covered].var() + x[covered].var()) / 2
    return 4.0 * float(covered.mean()), float(y[covered].mean()), float(variance)


def _radii(shape: str, mass: float, variance: float) -> list[float]:
    """The radii that a shape of this mass and variance may have, if they are different and in range."""
    area, _, unit_variance = _unit_moments(shape)
    by_variance = float(np.sqrt(max(variance, 0.0) / unit_variance))
    by_mass = float(np.sqrt(mass / area))
    radii = [by_variance] if abs(by_variance / by_mass - 1.0) < _SAME_RADIUS else [by_variance, by_mass]
    return [radius for radius in radii if _TRIED_RANGE[0] <= radius <= _TRIED_RANGE[1]]


def _drawn(shape: str, x: float, y: float, radius: float, blur: float, window: tuple[int, ...]) -> np.ndarray:
    """Coverage of the pixels of a window by a shape, blurred."""
    height, width = window
    down, right = (
        (np.arange(side * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING - at
        for side, at in ((height, y), (width, x))
    )
    points = inside(shape, right[None, :] / radius, down[:, None] / radius)
    covered = points.reshape(height, _SUPERSAMPLING, width, _SUPERSAMPLING).mean(axis=(1, 3))
    return _kernel(height, blur) @ covered @ _kernel(width, blur) if blur else covered


@functools.cache
def _kernel(length: int, blur: float) -> np.ndarray:
    """A Gaussian blur along an axis, as a matrix `[length, length]`."""
    ticks = np.arange(length)
    return np.exp(-0.5 * ((ticks[:, None] - ticks) / blur) ** 2) / (blur * np.sqrt(2.0 * np.pi))


def _overlap(window: np.ndarray, stamp: np.ndarray, min_opacity: float) -> float:
    """Overlap of the map with a stamp at the opacity that fits; 0 if that is too low."""
    opacity = (window * stamp).sum() / (stamp**2).sum()
    if opacity < min_opacity:
        return 0.0
    faded = min(opacity, 1.0) * stamp
    shared = np.minimum(window, faded).sum()
    return float(shared / (window.sum() + faded.sum() - shared))
