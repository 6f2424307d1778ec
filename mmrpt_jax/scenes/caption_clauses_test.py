import numpy as np
import pytest

from mmrpt_jax.scenes import statements
from mmrpt_jax.scenes.caption_clauses import clauses_of_caption
from mmrpt_jax.scenes.captions import BOILERPLATE, describe
from mmrpt_jax.scenes.clauses import Clause, Clauses
from mmrpt_jax.scenes.references import untag
from mmrpt_jax.scenes.world import WORLDS, sample_scene

RED_CIRCLE, CIRCLE, SQUARE = Clause("circle", color="red"), Clause("circle"), Clause("square")


@pytest.mark.parametrize(
    ("text", "include", "exclude"),
    [
        ("the circle is red .", [RED_CIRCLE], []),
        ("look , the large circle at the top left is red .", [RED_CIRCLE], []),
        ("the small circle has the color red .", [RED_CIRCLE], []),
        ("the color of the circle at the bottom is red .", [RED_CIRCLE], []),
        ("there is a small red circle at the left .", [RED_CIRCLE], []),
        ("i can see an orange cross .", [Clause("cross", color="orange")], []),
        ("so the picture has a red circle .", [RED_CIRCLE], []),
        ("the large red shape at the top is a circle .", [RED_CIRCLE], []),
        ("the shape at the top is a circle .", [CIRCLE], []),
        ("the red circle is small .", [RED_CIRCLE], []),
        ("the circle is at the top right .", [CIRCLE], []),
        ("at the left is the red circle .", [RED_CIRCLE], []),
        ("so the circle is not blue .", [CIRCLE], []),
        ("so the red circle is not at the top left .", [RED_CIRCLE], []),
        ("so there is at least one circle .", [CIRCLE], []),
        ("there are three crosses .", [Clause("cross", 3)], [Clause("cross", 4)]),
        ("there is only one circle .", [CIRCLE], [Clause("circle", 2)]),
        ("the number of squares is two .", [Clause("square", 2)], [Clause("square", 3)]),
        ("the number of squares is one .", [SQUARE], [Clause("square", 2)]),
        ("the number of squares is zero .", [], [SQUARE]),
        ("there are no squares .", [], [SQUARE]),
        ("there is no square .", [], [SQUARE]),
        ("so you can not see a red circle .", [], [RED_CIRCLE]),
        ("so you can not find any squares .", [], [SQUARE]),
        (
            "the large red circle is left of the square .",
            [RED_CIRCLE, SQUARE, Clause("circle", color="red", relation=("left", 1))],
            [],
        ),
        (
            "so the square is above the circle .",
            [SQUARE, CIRCLE, Clause("square", relation=("above", 1))],
            [],
        ),
    ],
)
def test_single_sentences(text, include, exclude):
    assert clauses_of_caption(text) == Clauses(tuple(include), tuple(exclude))


@pytest.mark.parametrize(
    "text",
    [
        *BOILERPLATE,
        "",
        "there are three shapes .",
        "the number of small shapes is two .",
        "there is only one red shape .",
        "so something here is red .",
        "so not everything is red .",
        "so there is more than one shape .",
        "so the red shape is not a square .",
        # Not the captions' own words.
        "the circle is pink .",
        "there is a red circle and a blue square .",
        "there is no small circle .",
        "the red circle is blue .",
        "maybe there is a circle .",
    ],
)
def test_sentences_without_a_clause_are_passed_over(text):
    assert clauses_of_caption(text) == Clauses()


def test_sentences_add_up():
    text = (
        "there is a red circle . a circle is round . there are two circles . the circle is below the square ."
    )
    assert clauses_of_caption(text) == Clauses(
        (RED_CIRCLE, Clause("circle", 2), SQUARE, Clause("circle", relation=("below", 2))),
        (Clause("circle", 3),),
    )
    assert clauses_of_caption("the circle is red . so the circle is red") == Clauses((RED_CIRCLE,))
    both = "there are two circles . there is only one circle ."
    assert clauses_of_caption(both) == Clauses((Clause("circle", 2),), (Clause("circle", 2),))


def built(builder, count=200):
    """Statements of one builder, with their scenes."""
    for i in range(count):
        rng = np.random.default_rng(i)
        scene = sample_scene(WORLDS["unbiased"], 4, i)
        if statement := builder(scene, rng):
            yield scene, statement, clauses_of_caption(untag(statement.text))


def test_colors_and_shapes_round_trip():
    """What is news of an object in a statement of its colour or shape is in the clause."""
    for builder in (statements.color_statement, statements.shape_statement):
        for _, statement, clauses in built(builder):
            ((obj, _),) = statement.news
            colored = "color" in {name for _, name in statement.news | statement.given}
            assert clauses == Clauses((Clause(obj.shape, color=obj.color if colored else None),))


def test_existence_and_relations_round_trip():
    for _, statement, clauses in built(statements.existence_statement):
        assert {(c.shape, c.color) for c in clauses.include} == {
            (o.shape, o.color) for o, _ in statement.news
        }
    for _, statement, clauses in built(statements.relation_statement):
        ((first, _),) = statement.news
        (clause,) = (c for c in clauses.include if c.relation)
        relation, place = clause.relation
        assert clause.shape == first.shape
        second = next(o for o, name in statement.given if name == "position")
        assert clauses.include[place].shape == second.shape
        assert relation in untag(statement.text).split()


def test_numbers_round_trip():
    numbers = 0
    for scene, statement, clauses in built(statements.count_statement):
        for shape in ("circle", "square", "triangle", "cross"):
            if (
                f"{shape}s/" in statement.text
                or f"{shape}es/" in statement.text
                or f"{shape}/" in statement.text
            ):
                number = sum(obj.shape == shape for obj in scene.objects)
                numbers += 1
                assert clauses.exclude == (Clause(shape, number + 1),)
                assert clauses.include == ((Clause(shape, number),) if number else ())
    assert numbers > 30


def test_everything_read_from_captions_is_true():
    for i in range(300):
        scene = sample_scene(WORLDS["unbiased"], 5, i)
        clauses = clauses_of_caption(describe(scene, 5, i).text)
        for clause in clauses.include + clauses.exclude:
            members = [
                o for o in scene.objects if o.shape == clause.shape and clause.color in (None, o.color)
            ]
            assert (len(members) >= clause.count) == (clause in clauses.include)
            if clause.relation:
                relation, place = clause.relation
                other = clauses.include[place]
                gaps = [
                    {"left": b.x - a.x, "right": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation]
                    for a in members
                    for b in scene.objects
                    if b.shape == other.shape and other.color in (None, b.color)
                ]
                assert max(gaps) >= 6
