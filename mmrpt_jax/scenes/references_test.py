import pytest

from mmrpt_jax.scenes.references import (
    Reference,
    identifying_references,
    lies_at,
    opposite_position,
    related,
    relation_phrase,
    untag,
)
from mmrpt_jax.scenes.world import Object, Scene

TOP = Object("circle", "red", "small", 30, 10)
LEFT = Object("circle", "blue", "large", 12, 40)
RIGHT = Object("square", "blue", "small", 55, 44)
SCENE = Scene((TOP, LEFT, RIGHT))


@pytest.mark.parametrize(
    ("obj", "position", "expected"),
    [
        (TOP, "top", True),
        (TOP, "left", False),
        (TOP, "top left", False),
        (LEFT, "left", True),
        (LEFT, "bottom", False),
        (RIGHT, "bottom right", True),
        (Object("cross", "red", "small", 21, 21), "top left", True),
        (Object("cross", "red", "small", 22, 21), "top left", False),
    ],
)
def test_lies_at(obj, position, expected):
    assert lies_at(obj, position) is expected


def test_relations_need_a_clear_gap():
    a, b = Object("circle", "red", "small", 10, 30), Object("circle", "red", "small", 30, 34)
    assert related(a, "left", b)
    assert related(b, "right", a)
    assert not related(a, "right", b)
    assert not related(a, "above", b)
    assert not related(b, "below", a)


def test_reference_text_and_tags():
    reference = Reference("circle", "red", "large", "top left")
    assert reference.text == "the large/size red/color circle/shape at the top/position left/position"
    assert untag(reference.text) == "the large red circle at the top left"
    assert untag(Reference(position="top").text) == "the shape at the top"
    assert reference.facts(TOP) == {(TOP, kind) for kind in ("shape", "color", "size", "position")}


def test_identifying_references_by_hand():
    def texts(obj, *combinations):
        return {untag(reference.text) for reference in identifying_references(SCENE, obj, combinations)}

    assert texts(RIGHT, ("shape",), ("color",), ("color", "shape")) == {"the square", "the blue square"}
    # Two circles: the bare noun is ambiguous, size or place tell them apart.
    assert texts(LEFT, ("shape",), ("shape", "size"), ("shape", "position")) == {
        "the large circle",
        "the circle at the left",
    }


def test_position_close_to_the_border_is_ambiguous():
    inside, just_outside = (
        Object("circle", "red", "small", 10, 20),
        Object("circle", "red", "small", 40, 25),
    )
    far = Object("circle", "red", "small", 40, 40)
    at_top = Reference(shape="circle", position="top")
    assert not at_top.identifies(inside, Scene((inside, just_outside)))
    assert at_top.identifies(inside, Scene((inside, far)))


def test_small_words():
    assert untag(relation_phrase("left")) == "left of"
    assert untag(relation_phrase("above")) == "above"
    assert opposite_position("top left") == "bottom right"
