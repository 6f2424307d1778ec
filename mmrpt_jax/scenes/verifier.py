"""Reads an image back into objects, from pixels alone.

Exact on rendered scenes: `read(render(scene)) == scene`. Images that a model made are noisy, blurred or pale;
an object still counts if it is near enough to one that the renderer could have drawn. What looks like none is
not read, and `examine` says how much of the image the reading explains.
"""

from typing import NamedTuple

import numpy as np

from mmrpt_jax.scenes.fit import MARGIN, best_fit
from mmrpt_jax.scenes.regions import grown, interior, label_components
from mmrpt_jax.scenes.render import BACKGROUND, PALETTE
from mmrpt_jax.scenes.world import COLORS, IMAGE_SIZE, RADIUS, SIZES, Object, Scene

FOREGROUND_DISTANCES = (60.0, 100.0, 140.0)
"""RGB distances from the background, tried in this order: the higher ones part objects that blur has joined."""
COLOR_TOLERANCE = 0.25
MIN_PIXELS = 12
MIN_OVERLAP = 0.75
MIN_OPACITY = 0.6
FAINT = 0.1
"""Opacities up to this are noise or a tint."""

_BACKGROUND = np.array(BACKGROUND, float)
_DIRECTIONS = np.array([PALETTE[color] for color in COLORS], float) - _BACKGROUND
_LENGTHS = (_DIRECTIONS**2).sum(axis=1)


class Reading(NamedTuple):
    """What an image shows.

    Attributes:
      scene: The objects recognised.
      validity: Fraction of pixels, in [0, 1], that are background or lie in the bounding box of such an
        object; 1 for every rendered scene.
    """

    scene: Scene
    validity: float


def _recognise(offset: np.ndarray, component: np.ndarray, free: np.ndarray) -> Object | None:
    """The object that a component shows, from the pixels' offsets `[H, W, 3]` to the background.

    The colour is the one whose ray from the background, between `MIN_OPACITY` and full strength, passes nearest
    to the median pixel of the interior; nearer than `COLOR_TOLERANCE` of that point's distance from the
    background, or it is no colour (greys are not).

    The opacity `a = offset·(colour - background) / |colour - background|²`, clipped to [0, 1], of the component and
    of what is free close by, goes to the best fit, whose radius and centre are rounded to those of the world.
    """
    median = np.median(offset[interior(component)], axis=0)
    strength = np.clip(_DIRECTIONS @ median / _LENGTHS, MIN_OPACITY, 1.0)
    misses = np.linalg.norm(median - strength[:, None] * _DIRECTIONS, axis=1)
    color = int(np.argmin(misses))
    if misses[color] > COLOR_TOLERANCE * strength[color] * np.sqrt(_LENGTHS[color]):
        return None
    alpha = np.clip(offset @ _DIRECTIONS[color] / _LENGTHS[color], 0.0, 1.0)
    alpha = np.where(free & grown(component, MARGIN) & (alpha > FAINT), alpha, 0.0)
    fit = best_fit(alpha, min_opacity=MIN_OPACITY)
    if fit is None or fit.overlap < MIN_OVERLAP:
        return None
    size = min(SIZES, key=lambda name: abs(np.log(RADIUS[name] / fit.radius)))
    lowest, highest = RADIUS[size], IMAGE_SIZE - RADIUS[size]
    x, y = (int(np.clip(np.rint(centre), lowest, highest)) for centre in (fit.x, fit.y))
    return Object(fit.shape, COLORS[color], size, x, y)


def _in_size(image: np.ndarray) -> np.ndarray:
    """Pixels `[64, 64, 3]` in [0, 255]: those of a larger image are means of squares."""
    side = image.shape[0] // IMAGE_SIZE if image.ndim == 3 else 0
    if not side or image.shape != (side * IMAGE_SIZE, side * IMAGE_SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"Expected uint8 [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], or so many times larger, got {image.dtype} "
            f"{list(image.shape)}."
        )
    squares = image.astype(float).reshape(IMAGE_SIZE, side, IMAGE_SIZE, side, 3)
    return squares.mean(axis=(1, 3))


def examine(image: np.ndarray) -> Reading:
    """Reads a scene from pixels alone, and how much of the image it explains.

    Pixels that differ from the background form 8-connected components; each is compared with the shapes of the
    renderer, sharp and blurred, wherever they lie. Components of fewer than `MIN_PIXELS` pixels, unlike every colour
    of the palette (`COLOR_TOLERANCE`), fainter than `MIN_OPACITY`, unlike every shape (overlap below `MIN_OVERLAP`)
    or far from every size (`fit.RADIUS_RANGE`) are no objects. What is no object at one of the
    `FOREGROUND_DISTANCES` is tried again at the next.

    Args:
      image: uint8 `[64, 64, 3]` or so many times larger, any content.

    Raises:
      ValueError: If the array is no uint8 `[64 k, 64 k, 3]`.
    """
    offset = _in_size(np.asarray(image)) - _BACKGROUND
    distance = np.linalg.norm(offset, axis=-1)
    taken = np.zeros(distance.shape, bool)
    explained = distance <= FOREGROUND_DISTANCES[0]
    objects = []
    for threshold in FOREGROUND_DISTANCES:
        labels, _ = label_components((distance > threshold) & ~taken)
        for label in 1 + np.flatnonzero(np.bincount(labels.ravel())[1:] >= MIN_PIXELS):
            component = labels == label
            others = (labels > 0) & ~component
            if obj := _recognise(offset, component, ~(taken | grown(others, 1))):
                objects.append(obj)
                taken |= grown(component, 1)
                explained[
                    obj.y - obj.radius : obj.y + obj.radius, obj.x - obj.radius : obj.x + obj.radius
                ] = True
    return Reading(Scene(tuple(objects)), float(explained.mean()))


def read(image: np.ndarray) -> Scene:
    """The scene that `examine` reads from a uint8 `[64 k, 64 k, 3]`; without objects if none are recognised.

    Raises:
      ValueError: If the array is no such image.
    """
    return examine(image).scene
