"""Statements: true sentences that need the image, with what they tell and what follows from them.

A statement builder takes a scene and a generator and returns a statement, or `None` if its draw has none to
offer.
"""

import dataclasses

import numpy as np

from mmrpt_jax.scenes.references import (
    INVERSE,
    POSITIONS,
    RELATIONS,
    Reference,
    identifying_references,
    lies_at,
    opposite_position,
    related,
    relation_phrase,
    tag_words,
    untag,
)
from mmrpt_jax.scenes.world import COLORS, SHAPES, SIZES, Object, Scene, pick

NUMBERS = ("zero", "one", "two", "three", "four", "five")
COLOR_REFERENCES = (("shape",), ("shape", "size"), ("shape", "position"), ("shape", "size", "position"))
SHAPE_REFERENCES = (("color",), ("color", "size"), ("position",), ("size", "position"), ("color", "position"))
THING_REFERENCES = (("shape",), ("shape", "color"), ("shape", "size"))

Fact = tuple[Object, str]


@dataclasses.dataclass(frozen=True)
class Statement:
    """A tagged sentence that needs the image.

    Attributes:
      text: Tagged text, see `references`.
      news: Facts (object, attribute) that make it worth saying; once they are known, it follows from what was
        said.
      given: Facts that it tells in passing.
      consequences: Plain sentences that follow from it without the image.
    """

    text: str
    news: frozenset[Fact] = frozenset()
    given: frozenset[Fact] = frozenset()
    consequences: tuple[str, ...] = ()


def with_article(noun_phrase: str) -> str:
    """The noun phrase behind "a" or "an"."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"


def plural(shape: str) -> str:
    """Plural of a shape word."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def color_statement(scene: Scene, rng: np.random.Generator) -> Statement | None:
    """Tells the colour of an object after its shape: "the large circle at the top is red ."."""
    if not (found := _point(scene, rng, COLOR_REFERENCES)):
        return None
    obj, ref = found
    color = f"{obj.color}/color"
    templates = (
        f"{ref.text} is {color} .",
        f"{ref.text} has the color {color} .",
        f"the color of {ref.text} is {color} .",
        f"look , {ref.text} is {color} .",
    )
    consequences = (
        f"so {untag(ref.text)} is not {_other(rng, COLORS, obj.color)} .",
        f"so there is at least one {obj.shape} .",
        f"so something here is {obj.color} .",
    )
    # Half of them take the first wording, which the questions use too.
    text = pick(rng, (templates[0], pick(rng, templates)))
    return Statement(text, frozenset({(obj, "color")}), ref.facts(obj), consequences)


def existence_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Tells the colour of an object before its shape: "there is a small blue square at the left ."."""
    obj = pick(rng, scene.objects)
    places = [position for position in POSITIONS if lies_at(obj, position)]
    ref = Reference(obj.shape, obj.color, pick(rng, (None, obj.size)), pick(rng, (None, *places)))
    thing = with_article(ref.noun_phrase)
    consequences = (
        f"so there is at least one {obj.shape} .",
        f"so not everything is {_other(rng, COLORS, obj.color)} .",
    )
    text = pick(rng, (f"there is {thing} .", f"i can see {thing} ."))
    # The sentence is news only if no object that it fits is known.
    news = frozenset((other, "color") for other in scene.objects if ref.matches(other))
    return Statement(text, news, ref.facts(obj), consequences)


def shape_statement(scene: Scene, rng: np.random.Generator) -> Statement | None:
    """Tells what an object is: "the red shape is a circle ."."""
    if not (found := _point(scene, rng, SHAPE_REFERENCES)):
        return None
    obj, ref = found
    consequences = (
        f"so {untag(ref.text)} is not a {_other(rng, SHAPES, obj.shape)} .",
        f"so the picture has a {obj.shape} .",
    )
    return Statement(
        f"{ref.text} is a {obj.shape}/shape .", frozenset({(obj, "shape")}), ref.facts(obj), consequences
    )


def size_statement(scene: Scene, rng: np.random.Generator) -> Statement | None:
    """Tells the size of an object: "the red circle is small ."."""
    if not (found := _point(scene, rng, (("shape",), ("shape", "color")))):
        return None
    obj, ref = found
    consequences = (f"so {untag(ref.text)} is not {_other(rng, SIZES, obj.size)} .",)
    return Statement(
        f"{ref.text} is {obj.size}/size .", frozenset({(obj, "size")}), ref.facts(obj), consequences
    )


def position_statement(scene: Scene, rng: np.random.Generator) -> Statement | None:
    """Tells where an object lies: "the circle is at the top left ."."""
    if not (found := _point(scene, rng, THING_REFERENCES)):
        return None
    obj, ref = found
    if not (places := [position for position in POSITIONS if lies_at(obj, position)]):
        return None
    place = pick(rng, places)
    words = tag_words(place, "position")
    text = pick(rng, (f"{ref.text} is at the {words} .", f"at the {words} is {ref.text} ."))
    consequences = (f"so {untag(ref.text)} is not at the {opposite_position(place)} .",)
    return Statement(text, frozenset({(obj, "position")}), ref.facts(obj), consequences)


def relation_statement(scene: Scene, rng: np.random.Generator) -> Statement | None:
    """Tells how two objects lie to each other: "the red circle is left of the square ."."""
    start, end = _point(scene, rng, THING_REFERENCES), _point(scene, rng, THING_REFERENCES)
    if start is None or end is None:
        return None
    (first, first_ref), (second, second_ref) = start, end
    if not (relations := [relation for relation in RELATIONS if related(first, relation, second)]):
        return None
    relation = pick(rng, relations)
    back = f"so {second_ref.text} is {relation_phrase(INVERSE[relation])} {first_ref.text} ."
    return Statement(
        f"{first_ref.text} is {relation_phrase(relation)} {second_ref.text} .",
        news=frozenset({(first, "position")}),
        given=first_ref.facts(first) | second_ref.facts(second) | {(second, "position")},
        consequences=(untag(back),),
    )


def total_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Counts all objects: "there are three shapes ."."""
    count = len(scene.objects)
    number = f"{NUMBERS[count]}/count"
    shapes = "shape" if count == 1 else "shapes"
    templates = (
        f"there {'is' if count == 1 else 'are'} {number} {shapes} .",
        f"the picture shows {number} {shapes} .",
        f"the number of shapes is {number} .",
    )
    bound = "at least one shape" if count == 1 else "more than one shape"
    return Statement(pick(rng, templates), consequences=(f"so there is {bound} .",))


def count_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Counts the objects of one shape, size or colour: "the number of small shapes is two ."."""
    kind = pick(rng, ("shape", "size", "color"))
    value = pick(rng, {"shape": SHAPES, "size": SIZES, "color": COLORS}[kind])
    count = sum(getattr(obj, kind) == value for obj in scene.objects)
    one = f"{value}/shape" if kind == "shape" else f"{value}/{kind} shape"
    many = f"{plural(value)}/shape" if kind == "shape" else f"{value}/{kind} shapes"
    wordings = {0: f"there are no/count {many} .", 1: f"there is only one/count {one} ."}
    alternative = wordings.get(count, f"there are {NUMBERS[count]}/count {many} .")
    text = pick(rng, (f"the number of {many} is {NUMBERS[count]}/count .", alternative))
    follows = f"so there is at least one {one} ." if count else f"so you can not find any {many} ."
    # Without small shapes, all are known to be large.
    given = frozenset((obj, "size") for obj in scene.objects if kind == "size" and not count)
    return Statement(text, given=given, consequences=(untag(follows),))


def presence_statement(scene: Scene, rng: np.random.Generator) -> Statement:
    """Says whether there is some shape, perhaps of some colour: "there is no cross ."."""
    ref = Reference(shape=pick(rng, SHAPES), color=pick(rng, (None, *COLORS)))
    thing = with_article(untag(ref.noun_phrase))
    matching = [obj for obj in scene.objects if ref.matches(obj)]
    if matching:
        given = frozenset().union(*(ref.facts(obj) for obj in matching))
        text = f"there is {with_article(ref.noun_phrase)} ."
        return Statement(text, given=given, consequences=(f"so the picture has {thing} .",))
    return Statement(
        f"there is no/count {ref.noun_phrase} .", consequences=(f"so you can not see {thing} .",)
    )


def _point(
    scene: Scene, rng: np.random.Generator, combinations: tuple[tuple[str, ...], ...]
) -> tuple[Object, Reference] | None:
    """A random object with a random unambiguous reference to it, if it has one."""
    obj = pick(rng, scene.objects)
    references = identifying_references(scene, obj, combinations)
    return (obj, pick(rng, references)) if references else None


def _other(rng: np.random.Generator, options: tuple[str, ...], known: str) -> str:
    return pick(rng, [option for option in options if option != known])
