"""Draws a scene as a 64×64 image.

Centres lie on the pixel grid, so each of the 48 (shape, colour, size) combinations has one anti-aliased
stamp, made once by supersampling; rendering copies stamps into their disjoint bounding boxes.
"""

import functools

import numpy as np

from mmrpt_jax.scenes.world import IMAGE_SIZE, RADIUS, Scene

BACKGROUND = (238, 238, 238)
PALETTE = {
    "red": (214, 30, 40),
    "green": (30, 150, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 30),
    "purple": (140, 50, 170),
    "orange": (250, 125, 10),
}
SUPERSAMPLING = 8


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points (y downwards) belong to the shape, whose bounding box is [-1, 1]²."""
    match shape:
        case "circle":
            return x**2 + y**2 <= 1.0
        case "square":
            return np.maximum(abs(x), abs(y)) <= 0.85
        case "triangle":
            return (abs(x) <= 0.5 * (y + 1.0)) & (y <= 0.85)
        case "cross":
            return (np.minimum(abs(x), abs(y)) <= 0.35) & (np.maximum(abs(x), abs(y)) <= 1.0)
    raise ValueError(f"Unknown shape {shape!r}.")


@functools.cache
def coverage(shape: str, size: str) -> np.ndarray:
    """Fraction of every pixel that the shape covers: float64 `[2r, 2r]` in [0, 1], read-only.

    r is the radius of the size.
    `coverage = mean over SUPERSAMPLING² points of the pixel of 1[point in shape]`.
    """
    side = 2 * RADIUS[size]
    points = side * SUPERSAMPLING
    ticks = (np.arange(points) + 0.5) * 2.0 / points - 1.0
    y, x = np.meshgrid(ticks, ticks, indexing="ij")
    samples = inside(shape, x, y).reshape(side, SUPERSAMPLING, side, SUPERSAMPLING)
    alpha = samples.mean(axis=(1, 3))
    alpha.setflags(write=False)
    return alpha


@functools.cache
def _stamp(shape: str, color: str, size: str) -> np.ndarray:
    alpha = coverage(shape, size)[..., None]
    blend = alpha * np.array(PALETTE[color]) + (1.0 - alpha) * np.array(BACKGROUND)
    return np.rint(blend).astype(np.uint8)


def render(scene: Scene) -> np.ndarray:
    """Renders a scene: `pixel = coverage · colour + (1 - coverage) · background`.

    Args:
      scene: Objects with disjoint bounding boxes inside the image, as the samplers make them.

    Returns:
      uint8 `[64, 64, 3]`, RGB; rows run from top to bottom.

    Raises:
      ValueError: If an object's bounding box leaves the image.
    """
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), BACKGROUND, np.uint8)
    for obj in scene.objects:
        r = obj.radius
        if min(obj.x, obj.y) < r or max(obj.x, obj.y) > IMAGE_SIZE - r:
            raise ValueError(f"{obj} leaves the image; its centre must lie in [{r}, {IMAGE_SIZE - r}].")
        image[obj.y - r : obj.y + r, obj.x - r : obj.x + r] = _stamp(obj.shape, obj.color, obj.size)
    return image
