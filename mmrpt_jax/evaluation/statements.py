"""True or false? One statement, several views of one scene (NLVR v1: six orders of three boxes), one verdict."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmrpt_jax.data.damage import Note, ignore, usable
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.examples import Pixels
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.prompts import answer_text
from mmrpt_jax.evaluation.evaluator import Evaluator, ImageCondition

VERDICTS = ("true", "false")


class StatementGroup(NamedTuple):
    """A statement, the images of every view that it is judged on, and whether it is "true" or "false"."""

    statement: str
    views: list[list[Pixels]]
    label: str


def statement_groups(
    records: Sequence[Mapping[str, Any]],
    fits: Callable[[str, Sequence[Pixels]], bool] = lambda question, images: True,
    note: Note = ignore,
) -> list[StatementGroup]:
    """Collects records of one `group` and question, whose answers are "true" or "false", in order of appearance.

    Args:
        records: with their `qa`.
        fits: whether a question can be asked of images at all; statements that cannot are left out.
        note: is told of records that are damaged, which are left out.
    """
    found: dict[tuple[str, str, str], list] = defaultdict(list)

    def judged(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Any], list[Pixels]]:
        asked = [qa for qa in record["qa"] if qa["answer"] in VERDICTS]
        return record, asked, [decode_image(image) for image in record["images"]] if asked else []

    for _, (record, asked, images) in usable(records, judged, note):
        for qa in asked:
            if fits(escape_placeholders(qa["question"]), images):
                found[record["group"], qa["question"], qa["answer"]].append(images)
    return [StatementGroup(escape_placeholders(q), views, label) for (_, q, label), views in found.items()]


def statement_accuracy(
    evaluator: Evaluator, params, groups: Sequence[StatementGroup], condition: ImageCondition = "right"
) -> float:
    """Share of statements judged rightly: log p("true") − log p("false"), averaged over the views, against 0."""
    asked = [(group.statement, images) for group in groups for images in group.views]
    images = [images for _, images in asked]
    prompts = [evaluator.wording.question_prompt(statement, len(images)) for statement, images in asked]
    verdicts = [[answer_text(verdict) for verdict in VERDICTS]] * len(prompts)
    scores = np.array(evaluator.log_likelihoods(params, images, prompts, verdicts, condition))
    ends = np.cumsum([len(group.views) for group in groups])
    margins = [part.mean() for part in np.split(scores[:, 0] - scores[:, 1], ends[:-1])]
    judged = [VERDICTS[0] if margin > 0 else VERDICTS[1] for margin in margins]
    return float(np.mean([verdict == group.label for verdict, group in zip(judged, groups, strict=True)]))


def majority_share(groups: Sequence[StatementGroup]) -> float:
    """Accuracy of always giving the more frequent verdict."""
    return Counter(group.label for group in groups).most_common(1)[0][1] / len(groups)
