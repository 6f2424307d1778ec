import pytest

from mmrpt_jax.scenes.clauses import Clause, Clauses, ScenePrompt, metadata, soft, stands, strict
from mmrpt_jax.scenes.references import RELATIONS
from mmrpt_jax.scenes.world import Object


def shape(kind, color="red", x=10, y=10, size="small"):
    return Object(kind, color, size, x, y)


CIRCLE_LEFT = [shape("circle", "red", 10, 30), shape("square", "blue", 50, 30)]
POSITION = Clauses((Clause("square"), Clause("circle", relation=("left", 0))))
ATTRIBUTES = Clauses((Clause("circle", color="red"), Clause("square", color="blue")))
THREE = Clauses((Clause("circle", 3),), exclude=(Clause("circle", 4),))


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (20, 0, {"right"}),
        (-20, 0, {"left"}),
        (0, 20, {"below"}),
        (0, -20, {"above"}),
        # 30 - 0.1 · (12 + 18) = 27 of 30·√2.
        (30, 30, {"right", "below"}),
        # 20 - 3 = 17 of 28.3: 0.60 each; 12 - 3 = 9 of 16.97: 0.53; 10 - 3 = 7 of 14.1: 0.495.
        (12, -12, {"right", "above"}),
        (10, -10, set()),
        # Across, 40 - 3 = 37 of 44.7; down, 20 - 3 = 17 of 44.7: 0.38.
        (-40, 20, {"left"}),
        (2, 0, set()),
        (0, 0, set()),
    ],
)
def test_relations_by_hand(dx, dy, expected):
    """A small and a large object: the sides of the boxes are 12 and 18 pixels."""
    first, second = shape("circle", x=30 + dx, y=30 + dy), shape("square", x=30, y=30, size="large")
    assert {relation for relation in RELATIONS if stands(first, relation, second)} == expected


def genevals_relations(first, second):
    """GenEval's `relative_position`, from boxes."""
    boxes = [(o.x - o.radius, o.y - o.radius, o.x + o.radius, o.y + o.radius) for o in (first, second)]
    (ax, ay), (bx, by) = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes]
    dims = [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
    offset = ax - bx, ay - by
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    found = set()
    for axis, (negative, positive) in enumerate((("left", "right"), ("above", "below"))):
        shrunk = max(abs(offset[axis]) - 0.1 * (dims[0][axis] + dims[1][axis]), 0)
        if length and shrunk / length > 0.5:
            found.add(positive if offset[axis] > 0 else negative)
    return found


def test_relations_agree_with_genevals_formula_everywhere():
    second = shape("square", x=30, y=30, size="large")
    for x in range(0, 64, 3):
        for y in range(0, 64, 3):
            first = shape("circle", x=x, y=y)
            found = {relation for relation in RELATIONS if stands(first, relation, second)}
            assert found == genevals_relations(first, second)


@pytest.mark.parametrize(
    ("clause", "count", "noun"),
    [
        (Clause("circle"), 1, "circle"),
        (Clause("circle", color="red"), 1, "red circle"),
        (Clause("square", 3, color="blue"), 2, "blue squares"),
        # How many a clause demands does not matter.
        (Clause("square", 3), 1, "square"),
    ],
)
def test_nouns(clause, count, noun):
    assert clause.noun(count) == noun


def test_single_object():
    clauses = Clauses((Clause("circle"),))
    assert [strict(objects, clauses) for objects in ([], [shape("square")], [shape("circle")])] == [0, 0, 1]
    assert strict([shape("circle"), shape("circle")], clauses) == 1
    assert strict([shape("circle"), shape("circle")], clauses, exact=True) == 0
    # Two where one is asked for: 1 - 1/1; three: not below 0.
    assert [soft([shape("circle")] * n, clauses) for n in range(4)] == [0, 1, 0, 0]


def test_counting_by_hand():
    grades = [(strict([shape("circle")] * n, THREE), soft([shape("circle")] * n, THREE)) for n in range(8)]
    assert [grade for grade, _ in grades] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert [partial for _, partial in grades] == pytest.approx([0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0])


def test_colors_by_hand():
    clauses = Clauses((Clause("circle", 2, "red"),))
    red, blue = shape("circle"), shape("circle", "blue")
    # Number and colour: (1 + 1)/2, (1 + 1/2)/2, (1 + 0)/2, (1/2 + 0)/2, (1/2 + 0)/2.
    for objects, grade, partial in [
        ([red, red], 1, 1.0),
        ([red, blue], 0, 0.75),
        ([blue, blue], 0, 0.5),
        ([red], 0, 0.25),
        ([red, red, blue], 1, 0.25),
    ]:
        assert strict(objects, clauses) == grade
        assert soft(objects, clauses) == pytest.approx(partial)
    assert strict([red, red, blue], clauses, exact=True) == 0


def test_bound_attributes_must_not_be_swapped():
    swapped = [shape("circle", "blue"), shape("square", "red", 50)]
    assert (strict(CIRCLE_LEFT, ATTRIBUTES), soft(CIRCLE_LEFT, ATTRIBUTES)) == (1, 1)
    # Two numbers are right, two colours wrong.
    assert (strict(swapped, ATTRIBUTES), soft(swapped, ATTRIBUTES)) == (0, 0.5)


def test_a_failed_relation_is_one_term_of_nothing():
    """The known bug counts it as two terms, 0 and 1, which makes 3/4 of what is 2/3."""
    circle_right = [shape("circle", "red", 50, 30), shape("square", "blue", 10, 30)]
    assert (strict(CIRCLE_LEFT, POSITION), soft(CIRCLE_LEFT, POSITION)) == (1, 1)
    assert strict(circle_right, POSITION) == 0
    assert soft(circle_right, POSITION) == pytest.approx(2 / 3)
    # Without a square: number of squares 0, of circles 1, relation 0.
    assert soft(circle_right[:1], POSITION) == pytest.approx(1 / 3)
    # With a second circle: squares 1, circles 0, relation 0, although one circle is left of the square.
    crowd = [*CIRCLE_LEFT, shape("circle", "red", 50, 50)]
    assert soft(crowd, POSITION) == pytest.approx(1 / 3)
    assert (strict(crowd, POSITION), strict(crowd, POSITION, exact=True)) == (1, 0)


def test_relation_needs_the_right_colors_on_both_sides():
    clauses = Clauses((Clause("square", color="green"), Clause("circle", color="red", relation=("left", 0))))
    # Numbers 1 and 1, colours 0 and 1, relation 0.
    assert soft(CIRCLE_LEFT, clauses) == pytest.approx(3 / 5)
    assert strict(CIRCLE_LEFT, clauses) == 0


def test_exclusions():
    no_cross = Clauses((Clause("circle"),), exclude=(Clause("cross"),))
    no_red_cross = Clauses((Clause("circle"),), exclude=(Clause("cross", color="red"),))
    objects = [shape("circle"), shape("cross", "blue", 40, 40)]
    assert (strict(objects, no_cross), strict(objects, no_red_cross)) == (0, 1)
    assert soft(objects, no_cross) == 1
    assert soft(objects, Clauses(exclude=no_cross.exclude)) == 0
    assert soft([], Clauses(exclude=no_cross.exclude)) == 1


def test_metadata_is_genevals():
    prompt = ScenePrompt("draw three circles .", "counting", THREE)
    assert metadata(prompt) == {
        "tag": "counting",
        "include": [{"class": "circle", "count": 3}],
        "exclude": [{"class": "circle", "count": 4}],
        "prompt": "draw three circles .",
    }
    clauses = Clauses((Clause("square"), Clause("circle", color="red", relation=("left", 0))))
    assert metadata(ScenePrompt("…", "position", clauses))["include"] == [
        {"class": "square", "count": 1},
        {"class": "circle", "count": 1, "color": "red", "position": ["left of", 0]},
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Clause("star"), "shape"),
        (lambda: Clause("circle", 0), "count"),
        (lambda: Clause("circle", color="pink"), "colour"),
        (lambda: Clause("circle", relation=("inside", 0)), "relation"),
        (lambda: Clauses((Clause("circle", relation=("left", 0)),)), "earlier"),
        (lambda: Clauses((), (Clause("circle", relation=("left", 0)),)), "no relation"),
        (lambda: ScenePrompt("…", "poem", ATTRIBUTES), "tag"),
        (lambda: ScenePrompt("…", "colors", Clauses()), "at least one"),
        (lambda: ScenePrompt("…", "colors", Clauses((Clause("circle"), Clause("circle")))), "twice"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
