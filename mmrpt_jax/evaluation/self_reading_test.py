import pytest

from mmrpt_jax.evaluation.accuracy_test import FakeEvaluator
from mmrpt_jax.evaluation.geneval_test import CIRCLE, RED_CIRCLE, SECOND, SQUARE, drawings
from mmrpt_jax.evaluation.self_reading import (
    cycle_agreement,
    presence_questions,
    understanding_generation_gap,
    verdict_agreement,
)
from mmrpt_jax.scenes import Clause, Clauses, Object, Scene, ScenePrompt

TWO_CROSSES = ScenePrompt("two crosses .", "counting", Clauses((Clause("cross", 2),), (Clause("cross", 3),)))
BOTH = ScenePrompt("a square and a cross .", "two_object", Clauses((Clause("square"), Clause("cross"))))
BLUE = Object("circle", "blue", "large", 16, 30)


def test_captions_against_prompts_by_hand():
    captions = [
        "there is a red circle .",
        # One of two clauses was asked for.
        "there is a red circle . there is a blue square .",
        # The prompt says nothing of colours; what the caption says is no circle more.
        "there is a square .",
        "what ?",
    ]
    images = drawings([(CIRCLE,), (CIRCLE, SQUARE)], [(SQUARE,), ()])
    captioner = FakeEvaluator(captions)
    found = cycle_agreement(captioner, None, [RED_CIRCLE, BOTH], images)
    # Precisions 1, 1/2, 1, 0; recalls 1, 1, 1/2, 0; their harmonic means 1, 2/3, 2/3, 0.
    assert found == pytest.approx({"precision": 2.5 / 4, "recall": 2.5 / 4, "f1": (1 + 2 / 3 + 2 / 3) / 4})
    assert captioner.asked[1] == ["<image> describe the image :"] * 4


def test_questions_name_what_is_asked_for_and_as_much_that_is_not():
    def asked(prompt, *objects):
        return {q.question: q.reply for q in presence_questions(prompt, Scene(objects))}

    assert asked(RED_CIRCLE, CIRCLE) == {"is there a red circle ?": "yes", "is there a square ?": "no"}
    # The answers are those of the drawing.
    assert asked(RED_CIRCLE, BLUE, SQUARE) == {"is there a red circle ?": "no", "is there a square ?": "yes"}
    # After the last shape comes the first.
    assert asked(TWO_CROSSES) == {"is there a cross ?": "no", "is there a circle ?": "no"}
    assert list(asked(BOTH)) == [
        f"is there a {shape} ?" for shape in ("square", "cross", "triangle", "circle")
    ]
    three = Clauses(tuple(Clause(shape) for shape in ("circle", "square", "cross")))
    assert len(asked(ScenePrompt("…", "two_object", three))) == 4


def test_verdicts_against_pixels_by_hand():
    # The second drawing shows a blue circle and a square; it was to show a red circle.
    images = drawings([(CIRCLE, SECOND), (BLUE, SQUARE)])
    form = "<think></think><answer>{}</answer>".format
    # Of the answers yes, no, no, yes the first is given, the second is not, the third has no form, the fourth is given.
    evaluator = FakeEvaluator([form("yes"), form("yes"), "no", form("Yes .")])
    found = verdict_agreement(evaluator, None, [RED_CIRCLE], images)
    assert found == {"agreement": 2 / 4, "yes_share": 3 / 4, "present": 2 / 4, "parsed": 3 / 4}
    prompts = evaluator.asked[1]
    assert prompts == [
        f"<image> answer the question : is there a {thing} ?" for thing in ("red circle", "square") * 2
    ]


def test_groups_go_with_their_prompts():
    images = drawings([(CIRCLE,)], [(SQUARE,)])
    with pytest.raises(ValueError, match="zip"):
        cycle_agreement(FakeEvaluator([]), None, [RED_CIRCLE], images)
    with pytest.raises(ValueError, match="zip"):
        verdict_agreement(FakeEvaluator([]), None, [RED_CIRCLE], images)


def test_gap_by_hand():
    assert understanding_generation_gap(0.9, 0.4) == pytest.approx(0.5)
