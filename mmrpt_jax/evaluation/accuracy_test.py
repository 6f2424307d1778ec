import numpy as np
import pytest

from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.evaluation.accuracy import (
    answer_accuracy,
    binomial_ci95,
    cloze_accuracy,
    fill_accuracy,
    question_accuracy,
)
from mmrpt_jax.evaluation.items import ClozeItem, FillItem

# Images that tell which item they belong to.
IMAGES = [np.full((2, 2, 3), i, np.uint8) for i in range(5)]
FILL = [
    FillItem([IMAGES[0]], "a [MASK] circle", "red", "color"),
    FillItem([IMAGES[1]], "a [MASK] square", "blue", "color"),
    FillItem([IMAGES[2]], "a red [MASK]", "circle", "shape"),
    FillItem([IMAGES[3]], "a [MASK] triangle", "big", "size"),
    FillItem([IMAGES[4]], "two [MASK]", "the squares", "shape"),
]
COLORS = ("red", "blue", "green")


def color_item(index, answer, bias):
    cloze = f"{index} the circle is [MASK] ."
    return ClozeItem(IMAGES[index], f"{index} ?", cloze, COLORS, answer, f"it is {answer}", "color", bias)


CLOZE = [
    color_item(0, "red", "red"),
    color_item(1, "blue", "red"),
    color_item(2, "green", "red"),
    color_item(3, "green", "blue"),
    ClozeItem(IMAGES[4], "4 ?", "there are [MASK] circles .", ("two", "three"), "two", "two", "count", None),
]


class FakeEvaluator:
    """Answers from a list, and keeps what it was asked."""

    wording = Wording()

    def __init__(self, answers):
        self.answers, self.asked = answers, None

    def generate(self, params, images, prompts, condition="right"):
        self.asked = [int(image[0, 0, 0]) for (image,) in images], list(prompts), condition
        return self.answers

    def log_likelihoods(self, params, images, prompts, candidates, condition="right"):
        self.asked = [int(image[0, 0, 0]) for (image,) in images], list(prompts), candidates
        return [np.array(scores) for scores in self.answers]


def test_fill_accuracy_by_hand():
    form = "<think></think><answer> {}</answer>".format
    # Right; wrong; right, but malformed; right; right but for the article and the full stop.
    evaluator = FakeEvaluator([form("red"), form("red"), "circle", form("big"), form("squares.")])
    shares = fill_accuracy(evaluator, None, FILL, "swapped")
    assert shares == {"all": 3 / 5, "color": 1 / 2, "shape": 1 / 2, "size": 1.0, "parsed": 4 / 5}
    images, prompts, condition = evaluator.asked
    assert images == [0, 1, 2, 3, 4] and condition == "swapped"
    assert prompts[0].startswith("<image>") and prompts[0].endswith(" a [MASK] circle")


def test_cloze_accuracy_by_hand():
    # Chosen: red, red, green, blue, three.
    evaluator = FakeEvaluator([[-1, -2, -3], [-1, -2, -3], [-3, -2, -1], [-3, -1, -2], [-9, -8.5]])
    shares = cloze_accuracy(evaluator, None, CLOZE)
    # Of the colours that are not the favourite, two of three were answered with the favourite.
    assert shares == {"all": 2 / 5, "color": 2 / 4, "count": 0.0, "bias": 2 / 3}
    images, prompts, candidates = evaluator.asked
    assert images == [0, 1, 2, 3, 4]
    assert len(set(prompts)) == 1 and "[MASK]" not in prompts[0]
    assert candidates[1] == [f"1 the circle is {color} .<eos>" for color in COLORS]
    assert candidates[4] == ["there are two circles .<eos>", "there are three circles .<eos>"]


def test_where_the_bias_is_right_it_is_no_bias():
    assert cloze_accuracy(FakeEvaluator([[0, -1, -2]]), None, CLOZE[:1]) == {"all": 1.0, "color": 1.0}


def test_question_accuracy_by_hand():
    evaluator = FakeEvaluator(["It is red.", "it is red", "it is green", "", "three"])
    assert question_accuracy(evaluator, None, CLOZE) == {"all": 2 / 5, "color": 2 / 4, "count": 0.0}
    assert evaluator.asked[1][3].endswith(" 3 ?") and evaluator.asked[2] == "right"


def test_answer_accuracy_by_hand():
    form = "<think>hm</think><answer>{}</answer>".format
    # Right; wrong; right, but bare; wrong, for nothing but the answer counts; right.
    answers = [form("It is red."), form("it is red"), "it is green", form("it is it is green"), form("two")]
    evaluator = FakeEvaluator(answers)
    shares = answer_accuracy(evaluator, None, CLOZE, "none")
    assert shares == {"all": 2 / 5, "color": 1 / 4, "count": 1.0, "parsed": 4 / 5}
    assert evaluator.asked[1][3].endswith(" 3 ?") and evaluator.asked[2] == "none"


@pytest.mark.parametrize(
    ("share", "count", "half"), [(0.5, 100, 0.098), (0.2, 64, 0.098), (0.0, 10, 0.0), (1.0, 3, 0.0)]
)
def test_interval_of_a_share(share, count, half):
    # 1.96 · √(0.25 / 100) and 1.96 · √(0.16 / 64).
    assert binomial_ci95(share, count) == pytest.approx(half)
