"""Scenes of a few coloured shapes, drawn from worlds whose colours may follow the shapes.

A world fixes which colours its shapes take. In the biased world (training) most circles are red, so a text
model can predict a circle's colour without looking; in the flipped world the same prediction is wrong. A
scene is a pure function of `(world, seed, index)`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
RADIUS = {"small": 6, "large": 9}
SIZES = tuple(RADIUS)
MARGIN = 2
BORDER = 1
MAX_OBJECTS = 5

Pair = tuple[str, str]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Object:
    """One shape; `(x, y)` is its centre in pixels from the top left corner, an integer on the pixel grid."""

    shape: str
    color: str
    size: str
    x: int
    y: int

    @property
    def radius(self) -> int:
        """Half the side of the bounding box, in pixels."""
        return RADIUS[self.size]

    @property
    def pair(self) -> Pair:
        """The composition `(color, shape)`."""
        return self.color, self.shape


@dataclasses.dataclass(frozen=True)
class Scene:
    """Objects in reading order (top to bottom, then left to right), so that equal scenes compare equal."""

    objects: tuple[Object, ...]

    def __post_init__(self) -> None:
        ordered = sorted(self.objects, key=lambda o: (o.y, o.x, o.shape, o.color, o.size))
        object.__setattr__(self, "objects", tuple(ordered))


@dataclasses.dataclass(frozen=True)
class World:
    """A distribution over scenes.

    Attributes:
      favourites: `(shape, color)` pairs, at most one for a shape; a shape without one takes every allowed
        colour alike.
      bias: Probability in [0, 1] that a shape takes its favourite colour; otherwise it takes another allowed
        colour, all of them equally likely.
      excluded: `(color, shape)` compositions that never occur.
      required: `(color, shape)` compositions of which every scene holds at least one (if any are given).
      min_objects: Smallest number of objects, ≥ 1.
      max_objects: Largest number of objects, ≤ `MAX_OBJECTS`; every number in between is equally likely.
    """

    favourites: tuple[Pair, ...] = ()
    bias: float = 0.85
    excluded: tuple[Pair, ...] = ()
    required: tuple[Pair, ...] = ()
    min_objects: int = 2
    max_objects: int = 5

    def __post_init__(self) -> None:
        if not 0.0 <= self.bias <= 1.0:
            raise ValueError(f"World.bias is a probability, got {self.bias}.")
        if not 1 <= self.min_objects <= self.max_objects <= MAX_OBJECTS:
            raise ValueError(
                f"World needs 1 ≤ min_objects ≤ max_objects ≤ {MAX_OBJECTS}, "
                f"got {self.min_objects}, {self.max_objects}."
            )
        if len(dict(self.favourites)) != len(self.favourites):
            raise ValueError(f"World.favourites names a shape twice: {self.favourites}.")
        named = self.excluded + self.required + tuple((color, shape) for shape, color in self.favourites)
        if unknown := [pair for pair in named if pair[0] not in COLORS or pair[1] not in SHAPES]:
            raise ValueError(f"World knows the colours {COLORS} and the shapes {SHAPES}, got {unknown}.")
        wanted = self.required + tuple((color, shape) for shape, color in self.favourites)
        if clash := set(self.excluded) & set(wanted):
            raise ValueError(f"World excludes compositions that it also asks for: {sorted(clash)}.")
        if missing := [shape for shape in SHAPES if not self.allowed_colors(shape)]:
            raise ValueError(f"World.excluded leaves no colour for {missing}.")

    def allowed_colors(self, shape: str) -> tuple[str, ...]:
        """Colours that `shape` may take."""
        return tuple(color for color in COLORS if (color, shape) not in self.excluded)


@functools.lru_cache(maxsize=1024)
def color_probabilities(world: World, shape: str) -> tuple[float, ...]:
    """Probability of each colour of `COLORS` for `shape`, before `World.required` has its say; sums to 1.

    `p(favourite) = bias`, `p(other) = (1 - bias) / (allowed - 1)`; uniform over the allowed colours without a
    favourite.
    """
    allowed = world.allowed_colors(shape)
    favourite = dict(world.favourites).get(shape)
    if favourite is None or len(allowed) == 1:
        return tuple(float(color in allowed) / len(allowed) for color in COLORS)
    other = (1.0 - world.bias) / (len(allowed) - 1)
    return tuple(world.bias if color == favourite else other * (color in allowed) for color in COLORS)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def draw_color(world: World, shape: str, rng: np.random.Generator) -> str:
    """A colour for `shape`, by `color_probabilities`."""
    cumulative = np.cumsum(color_probabilities(world, shape)[:-1])
    return COLORS[int(np.searchsorted(cumulative, rng.random(), side="right"))]


def draw_centres(rng: np.random.Generator, radii: Sequence[int]) -> list[tuple[int, int]]:
    """Centres of boxes inside the image that keep `MARGIN` pixels apart; each uniform over what is free.

    Args:
      rng: Where places come from.
      radii: Half the sides of the boxes in pixels; at most `MAX_OBJECTS`, for more may find no place.

    Returns:
      `(x, y)` of every box, in the order of `radii`.
    """
    while True:
        centres: list[tuple[int, int]] = []
        for radius in radii:
            free = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
            edge = radius + BORDER
            free[edge : IMAGE_SIZE - edge + 1, edge : IMAGE_SIZE - edge + 1] = True
            for (x, y), other in zip(centres, radii, strict=False):
                reach = radius + other + MARGIN - 1
                free[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = False
            cells = np.flatnonzero(free)
            if not cells.size:
                break
            y, x = divmod(int(pick(rng, cells.tolist())), IMAGE_SIZE)
            centres.append((x, y))
        else:
            return centres


def draw_scene(world: World, rng: np.random.Generator) -> Scene:
    """Draws one scene from `rng`: number of objects, compositions, sizes (even odds), then free places."""
    count = int(rng.integers(world.min_objects, world.max_objects + 1))
    pairs = []
    for _ in range(count):
        shape = pick(rng, SHAPES)
        pairs.append((draw_color(world, shape, rng), shape))
    if world.required:
        pairs[0] = pick(rng, world.required)
    sizes = [pick(rng, SIZES) for _ in range(count)]
    centres = draw_centres(rng, [RADIUS[size] for size in sizes])
    return Scene(
        tuple(
            Object(shape, color, size, x, y)
            for (color, shape), size, (x, y) in zip(pairs, sizes, centres, strict=True)
        )
    )


def sample_scene(world: World, seed: int, index: int) -> Scene:
    """The scene number `index` (≥ 0) of a world's stream `seed` (≥ 0), a pure function of its arguments."""
    return draw_scene(world, np.random.default_rng((seed, index)))


def with_bias(world: World, bias: float) -> World:
    """The same world with another strength of the bias (probability of the favourite colour, in [0, 1])."""
    return dataclasses.replace(world, bias=bias)


BIASED_FAVOURITES = (("circle", "red"), ("square", "blue"), ("triangle", "green"), ("cross", "yellow"))
"""Training favourites."""

FLIPPED_FAVOURITES = (("circle", "blue"), ("square", "green"), ("triangle", "yellow"), ("cross", "red"))
"""The same four colours, each handed on to another shape: no shape keeps its favourite."""

HELD_OUT = (
    ("green", "circle"),
    ("purple", "circle"),
    ("yellow", "square"),
    ("orange", "square"),
    ("red", "triangle"),
    ("purple", "triangle"),
    ("blue", "cross"),
    ("orange", "cross"),
)
"""`(color, shape)` compositions never seen in training: all colours, two per shape, nobody's favourite."""

WORLDS = {
    "biased": World(favourites=BIASED_FAVOURITES, excluded=HELD_OUT),
    "unbiased": World(),
    "flipped": World(favourites=FLIPPED_FAVOURITES, excluded=HELD_OUT),
    "held_out": World(required=HELD_OUT),
}
"""The named worlds: training, no bias, reversed bias, and unseen compositions in every scene."""
