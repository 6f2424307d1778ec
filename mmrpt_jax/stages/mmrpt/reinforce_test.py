import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.answering import advantage_scale
from mmrpt_jax.stages.mmrpt.reinforce import _completions_log, _segments, loss_options


@pytest.mark.parametrize(
    ("steps", "every", "segments"),
    [(5, 0, [(0, 5)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 2, [(0, 2), (2, 4)]), (3, 9, [(0, 3)])],
)
def test_masks_are_refreshed_between_segments(steps, every, segments):
    assert list(_segments(steps, every)) == segments


@pytest.mark.parametrize(
    ("variant", "scale", "expected"),
    [("grpo", "variant", "group"), ("dr_grpo", "variant", "none"), ("grpo", "rloo", "rloo")],
)
def test_what_advantages_are_divided_by(variant, scale, expected):
    assert (
        advantage_scale(ConfigDict({"advantage": {"scale": scale}, "loss": {"variant": variant}})) == expected
    )


def test_the_budget_is_the_longest_completion():
    config = ConfigDict(
        {"rl": {"loss": {"variant": "dr_grpo", "kl": "none"}}, "data": {"branch_lengths": (8, 24)}}
    )
    assert loss_options(config) == {"variant": "dr_grpo", "kl": "none", "budget": 24}


def judged(text):
    columns = {"masked": ["a [MASK]"], "answer": ["box"], "id": ["x"]}
    return SimpleNamespace(
        batch=SimpleNamespace(columns=columns),
        completions=[f"{text} 0", f"{text} 1"],
        judgement=(
            SimpleNamespace(total=np.array([1.5, 0.5]), parts={"exact": np.array([1.0, np.nan])}),
            np.array([[1.0, -1.0]]),
        ),
    )


def test_a_resumed_run_writes_its_steps_anew(tmp_path):
    for first, last, text in ((0, 3, "early"), (2, 4, "late")):
        with contextlib.closing(CompletionsWriter(tmp_path)) as writer:
            write = _completions_log(writer)
            for step in range(first, last):
                write(step, judged(text))
    lines = read_jsonl(tmp_path / "completions.jsonl")
    assert [(line["step"], line["answers"]) for line in lines] == [
        (0, ["early 0", "early 1"]),
        (1, ["early 0", "early 1"]),
        (2, ["late 0", "late 1"]),
        (3, ["late 0", "late 1"]),
    ]
    assert lines[0]["rewards"] == {"total": [1.5, 0.5], "exact": [1.0, None]}
    assert (lines[0]["prompt"], lines[0]["masked_span"], lines[0]["image"]) == ("a [MASK]", "box", "x")
