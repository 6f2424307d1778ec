import pytest

from mmrpt_jax.scenes.clauses import Clause, Clauses, ScenePrompt, strict
from mmrpt_jax.scenes.prompts import prompt_at, scene_for
from mmrpt_jax.scenes.render import BACKGROUND, render
from mmrpt_jax.scenes.verdicts import Verdict, grade_image, grade_objects
from mmrpt_jax.scenes.world import WORLDS, Object, Scene, sample_scene


def shape(kind, color="red", x=12, y=12):
    return Object(kind, color, "small", x, y)


CIRCLE, SQUARE = shape("circle", "red", 12, 32), shape("square", "blue", 50, 32)
BOTH = Clauses((Clause("circle", color="red"), Clause("square", color="blue")))
THREE = Clauses((Clause("circle", 3),), exclude=(Clause("circle", 4),))
LEFT = Clauses((Clause("square"), Clause("circle", relation=("left", 0))))
ABOVE = Clauses((Clause("square", color="blue"), Clause("circle", 1, "red", ("above", 0))))


@pytest.mark.parametrize(
    ("objects", "clauses", "reason"),
    [
        ([CIRCLE, SQUARE], BOTH, "as asked"),
        ([CIRCLE, SQUARE, CIRCLE], BOTH, "as asked"),
        ([CIRCLE], BOTH, "no blue square"),
        ([SQUARE], BOTH, "no red circle"),
        ([], BOTH, "no red circle"),
        ([CIRCLE, shape("square", "green")], BOTH, "no blue square"),
        ([], THREE, "no circles"),
        ([CIRCLE], THREE, "one circle, not three"),
        ([CIRCLE] * 2, THREE, "two circles, not three"),
        ([CIRCLE] * 3, THREE, "as asked"),
        ([CIRCLE] * 4, THREE, "four circles, not three"),
        ([CIRCLE] * 6, THREE, "6 circles, not three"),
        ([SQUARE, CIRCLE], LEFT, "as asked"),
        ([SQUARE], LEFT, "no circle"),
        ([SQUARE, shape("circle", x=58)], LEFT, "circle not left of square"),
        ([SQUARE, CIRCLE], ABOVE, "red circle not above blue square"),
        ([SQUARE] * 2, Clauses(exclude=(Clause("square"),)), "two squares, unasked"),
        ([shape("cross")], Clauses((Clause("cross", 2, "red"),)), "one red cross, not two"),
        ([], Clauses((Clause("cross", 2, "red"),)), "no red crosses"),
    ],
)
def test_reasons_by_hand(objects, clauses, reason):
    assert grade_objects(clauses, objects) == Verdict(reason == "as asked", reason)


@pytest.mark.parametrize(
    ("objects", "clauses", "reason"),
    [
        ([CIRCLE, CIRCLE, SQUARE], BOTH, "two red circles, not one"),
        ([CIRCLE, shape("circle", "green"), SQUARE], BOTH, "two circles, not one"),
        ([shape("circle", "green"), SQUARE], BOTH, "no red circle"),
        ([SQUARE, CIRCLE, CIRCLE], LEFT, "two circles, not one"),
        ([SQUARE, shape("circle", x=58)], LEFT, "circle not left of square"),
        ([CIRCLE] * 4, THREE, "four circles, not three"),
    ],
)
def test_reasons_where_numbers_are_exact(objects, clauses, reason):
    assert grade_objects(clauses, objects, exact=True) == Verdict(False, reason)


@pytest.mark.parametrize("exact", [False, True])
def test_verdicts_are_those_of_strict(exact):
    for tag in ("two_object", "counting", "position", "color_attr"):
        for i in range(60):
            clauses = prompt_at(WORLDS["biased"], tag, 0, i).clauses
            objects = sample_scene(WORLDS["biased"], 0, i).objects
            verdict = grade_objects(clauses, objects, exact=exact)
            assert verdict.correct == bool(strict(objects, clauses, exact=exact))
            assert verdict.correct == (verdict.reason == "as asked")


def test_pixels_are_read():
    prompt = ScenePrompt("a red circle and a blue square .", "color_attr", BOTH)
    assert grade_image(prompt, render(Scene((CIRCLE, SQUARE)))) == (True, "as asked")
    assert grade_image(prompt, render(Scene((CIRCLE,)))) == (False, "no blue square")
    empty = render(Scene(()))
    assert (empty == BACKGROUND).all()
    assert grade_image(prompt, empty) == (False, "no red circle")


def test_every_tags_ground_truth_is_as_asked():
    world = WORLDS["biased"]
    for tag in ("single_object", "two_object", "counting", "colors", "position", "color_attr"):
        prompt = prompt_at(world, tag, 0, 3)
        assert grade_image(prompt, render(scene_for(prompt, world, 0, 3)), exact=True).correct


def test_another_size_is_refused():
    prompt = ScenePrompt("a red circle and a blue square .", "color_attr", BOTH)
    with pytest.raises(ValueError, match=r"\[64, 64, 3\]"):
        grade_image(prompt, render(Scene(()))[:32])
