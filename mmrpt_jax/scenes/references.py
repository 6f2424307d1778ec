"""Phrases that point to exactly one object: "the large circle at the top".

Text is written with tags, `the large/size circle/shape`, so that a sentence knows which of its words are
visual attributes. Positions and relations have a margin: what lies on the border between two names is never
called by either.
"""

import dataclasses
import itertools
from collections.abc import Iterable

from mmrpt_jax.scenes.world import IMAGE_SIZE, Object, Scene

BAND = 22
CLEAR = 6
SIDES = ("top", "bottom", "left", "right")
POSITIONS = (*SIDES, *(" ".join(corner) for corner in itertools.product(SIDES[:2], SIDES[2:])))
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
ATTRIBUTES = ("shape", "color", "size", "position")


def lies_at(obj: Object, position: str, slack: int = 0) -> bool:
    """Whether the centre lies within `BAND + slack` pixels of every side named ("top left" names two)."""
    distance = {"top": obj.y, "bottom": IMAGE_SIZE - obj.y, "left": obj.x, "right": IMAGE_SIZE - obj.x}
    return all(distance[side] < BAND + slack for side in position.split())


def related(first: Object, relation: str, second: Object) -> bool:
    """Whether `first` is left of, right of, above or below `second` by at least `CLEAR` pixels."""
    gap = {
        "left": second.x - first.x,
        "right": first.x - second.x,
        "above": second.y - first.y,
        "below": first.y - second.y,
    }
    return gap[relation] >= CLEAR


@dataclasses.dataclass(frozen=True)
class Reference:
    """A description of an object by some of its attributes; `None` leaves an attribute open."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None
    position: str | None = None

    def matches(self, obj: Object, slack: int = 0) -> bool:
        """Whether the description holds for an object; `slack` pixels widen the position."""
        return (
            self.shape in (None, obj.shape)
            and self.color in (None, obj.color)
            and self.size in (None, obj.size)
            and (self.position is None or lies_at(obj, self.position, slack))
        )

    def identifies(self, obj: Object, scene: Scene) -> bool:
        """Whether the description holds for `obj` and for nothing else, even `CLEAR` pixels further in."""
        return self.matches(obj) and sum(self.matches(other, CLEAR) for other in scene.objects) == 1

    def facts(self, obj: Object) -> frozenset[tuple[Object, str]]:
        """What a reader learns about `obj`: the (object, attribute) pairs that the description names."""
        return frozenset((obj, name) for name in ATTRIBUTES if getattr(self, name) is not None)

    @property
    def noun_phrase(self) -> str:
        """Tagged text without an article: "large/size red/color circle/shape at the top/position"."""
        adjectives = [f"{getattr(self, kind)}/{kind}" for kind in ("size", "color") if getattr(self, kind)]
        noun = f"{self.shape}/shape" if self.shape else "shape"
        place = f"at the {tag_words(self.position, 'position')}" if self.position else ""
        return " ".join([*adjectives, noun, place]).strip()

    @property
    def text(self) -> str:
        """Tagged text with the definite article."""
        return f"the {self.noun_phrase}"


def tag_words(words: str, kind: str) -> str:
    """Tags every word: `tag_words("top left", "position") == "top/position left/position"`."""
    return " ".join(f"{word}/{kind}" for word in words.split())


def relation_phrase(relation: str) -> str:
    """Tagged words that stand between two things: "left/relation of" or "above/relation"."""
    return f"{relation}/relation of" if relation in SIDES else f"{relation}/relation"


def opposite_position(position: str) -> str:
    """The position across the image: "top left" becomes "bottom right"."""
    return " ".join(OPPOSITE[side] for side in position.split())


def untag(text: str) -> str:
    """Plain text of tagged text."""
    return " ".join(word.split("/")[0] for word in text.split())


def identifying_references(
    scene: Scene, obj: Object, combinations: Iterable[tuple[str, ...]]
) -> list[Reference]:
    """All unambiguous references to `obj` that name exactly the attributes of one of the `combinations`.

    Args:
      scene: The scene that holds `obj`.
      obj: The object to point to.
      combinations: Sets of names from `ATTRIBUTES`, e.g. `[("shape",), ("shape", "position")]`.
    """
    places = [position for position in POSITIONS if lies_at(obj, position)]
    found = []
    for names in combinations:
        fixed = {name: getattr(obj, name) for name in names if name != "position"}
        for place in places if "position" in names else [None]:
            reference = Reference(**fixed, position=place)
            if reference.identifies(obj, scene):
                found.append(reference)
    return found
