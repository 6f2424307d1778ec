import io

import numpy as np
from PIL import Image

from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.evaluation.statements import (
    StatementGroup,
    majority_share,
    statement_accuracy,
    statement_groups,
)


def record(gray, group, *answers, images=1):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (gray,) * 3).save(file, "PNG")
    return {
        "images": [file.getvalue()] * images,
        "group": group,
        "qa": [{"question": question, "answer": answer} for question, answer in answers],
    }


RECORDS = [
    record(0, "a", ("one box ?", "true")),
    record(10, "b", ("one box ?", "false"), ("what color ?", "red")),
    record(20, "a", ("one box ?", "true"), ("an <image> ?", "false"), images=2),
    record(30, "c", ("is one less than two ?", "true"), images=0),
]


def test_records_of_one_group_and_question_are_views():
    groups = statement_groups(RECORDS)
    found = [
        (g.statement, [[int(image[0, 0, 0]) for image in images] for images in g.views], g.label)
        for g in groups
    ]
    assert found == [
        ("one box ?", [[0], [20, 20]], "true"),
        ("one box ?", [[10]], "false"),
        ("an < image> ?", [[20, 20]], "false"),
        ("is one less than two ?", [[]], "true"),
    ]
    assert majority_share(groups) == 2 / 4


MARGINS = {0: 3.0, 10: -1.0, 20: -4.0, 30: 1.0}


class FakeEvaluator:
    """Likelihoods of "true" and "false" by the grey of the image."""

    wording = Wording()

    def log_likelihoods(self, params, images, prompts, candidates, condition):
        assert candidates == [["true<eos>", "false<eos>"]] * len(images)
        assert all(prompt.endswith(" s ?") for prompt in prompts)
        assert [prompt.count("<image>") for prompt in prompts] == [len(pictures) for pictures in images]
        self.condition = condition
        return [np.array([MARGINS[int(pictures[0][0, 0, 0])] - 7, -7.0]) for pictures in images]


def view(gray, images=1):
    return [np.full((2, 2, 3), gray, np.uint8)] * images


def test_views_are_averaged_before_they_are_judged():
    groups = [
        # One view of two says "true", but by less than the other says "false".
        StatementGroup("s ?", [view(0), view(20, images=2)], "false"),
        StatementGroup("s ?", [view(10)], "true"),
        StatementGroup("s ?", [view(0), view(20), view(30), view(30)], "true"),
        StatementGroup("s ?", [view(20)], "false"),
    ]
    evaluator = FakeEvaluator()
    assert statement_accuracy(evaluator, None, groups, "none") == 3 / 4
    assert evaluator.condition == "none"
