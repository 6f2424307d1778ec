"""Reads an image back into objects, from pixels alone.

Exact on rendered scenes: `read(render(scene)) == scene`. On any other image it returns what looks enough like
an object, perhaps nothing, which makes it usable as a reward for generated images.
"""

import numpy as np

from mmrpt_jax.scenes.render import BACKGROUND, PALETTE, coverage
from mmrpt_jax.scenes.world import COLORS, IMAGE_SIZE, SHAPES, SIZES, Object, Scene

FOREGROUND_DISTANCE = 60.0
MIN_PIXELS = 12
MIN_OVERLAP = 0.7

_BACKGROUND = np.array(BACKGROUND, float)
_PALETTE = np.array([PALETTE[color] for color in COLORS], float)
_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels the 8-connected components of a boolean `[H, W]` mask by flood fill.

    Returns:
      int32 `[H, W]`, 0 outside the mask and 1..n inside, numbered in reading order of their first pixels; and
      n.
    """
    labels = np.zeros(mask.shape, np.int32)
    waiting = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    count = 0
    for start in sorted(waiting):
        if start not in waiting:
            continue
        count += 1
        waiting.remove(start)
        stack = [start]
        while stack:
            y, x = stack.pop()
            labels[y, x] = count
            for dy, dx in _NEIGHBOURS:
                if (y + dy, x + dx) in waiting:
                    waiting.remove((y + dy, x + dx))
                    stack.append((y + dy, x + dx))
    return labels, count


def _interior(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask whose four neighbours belong to it; the whole mask if there are none."""
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner if inner.any() else mask


def _halo(mask: np.ndarray) -> np.ndarray:
    """The mask grown by one pixel in the eight directions, so that faint anti-aliased edges belong to it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    grown = mask.copy()
    for dy, dx in _NEIGHBOURS:
        grown |= padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
    return grown


def _nearest_color(pixels: np.ndarray) -> int:
    """Index of the palette colour nearest to the median pixel (Euclidean distance in RGB)."""
    return int(np.argmin(np.linalg.norm(_PALETTE - np.median(pixels, axis=0), axis=-1)))


def _best_match(alpha: np.ndarray) -> tuple[float, str, str, int, int]:
    """The stamp that overlaps most with the opacity map `[H, W]`: (overlap, shape, size, x, y).

    A stamp is laid so that centres of mass coincide, to the nearest pixel.
    `overlap = Σ min(a, b) / Σ max(a, b)`, in [0, 1].
    """
    rows, columns = np.indices(alpha.shape) + 0.5
    mass = alpha.sum()
    center_y, center_x = (rows * alpha).sum() / mass, (columns * alpha).sum() / mass
    best = (0.0, "", "", 0, 0)
    for shape in SHAPES:
        for size in SIZES:
            stamp = coverage(shape, size)
            r = stamp.shape[0] // 2
            lift = ((np.arange(2 * r) + 0.5 - r) * stamp.sum(axis=1)).sum() / stamp.sum()
            x, y = int(np.rint(center_x)), int(np.rint(center_y - lift))
            if min(x, y) < r or max(x, y) > IMAGE_SIZE - r:
                continue
            window = alpha[y - r : y + r, x - r : x + r]
            shared = np.minimum(window, stamp).sum()
            best = max(best, (shared / (mass + stamp.sum() - shared), shape, size, x, y))
    return best


def read(image: np.ndarray) -> Scene:
    """Reads a scene from pixels alone.

    Pixels that differ from the background form 8-connected components; a component's colour is the palette
    colour nearest to its interior; its opacity `a = (pixel - background)·(colour - background) / |colour -
    background|²`, clipped to [0, 1], is compared with every stamp, and the best overlap decides shape, size
    and centre. Components of fewer than `MIN_PIXELS` pixels, or unlike every stamp (overlap below
    `MIN_OVERLAP`), are no objects.

    Args:
      image: uint8 `[64, 64, 3]`, any content.

    Returns:
      The scene, in reading order; without objects if none are recognised.

    Raises:
      ValueError: If the array is no uint8 `[64, 64, 3]`.
    """
    image = np.asarray(image)
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"Expected uint8 [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {image.dtype} {list(image.shape)}."
        )
    offset = image.astype(float) - _BACKGROUND
    labels, _ = label_components(np.linalg.norm(offset, axis=-1) > FOREGROUND_DISTANCE)
    objects = []
    for label in 1 + np.flatnonzero(np.bincount(labels.ravel())[1:] >= MIN_PIXELS):
        component = labels == label
        color = _nearest_color(image[_interior(component)])
        direction = _PALETTE[color] - _BACKGROUND
        alpha = np.clip(offset @ direction / (direction @ direction), 0.0, 1.0)
        opacity = np.where(_halo(component), alpha, 0.0)
        if opacity.sum() < MIN_PIXELS:
            continue
        overlap, shape, size, x, y = _best_match(opacity)
        if overlap >= MIN_OVERLAP:
            objects.append(Object(shape, COLORS[color], size, x, y))
    return Scene(tuple(objects))
