import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.mmrpt.reinforce import _advantage, _completions_log, _segments, loss_options

REWARDS = np.array([[[1.0], [0.0], [0.0], [1.0]], [[0.9], [0.1], [0.1], [0.1]]], np.float32)
ONE = np.ones(1, np.float32)
VALID = np.ones(REWARDS.shape, bool)


@pytest.mark.parametrize(
    ("steps", "every", "segments"),
    [(5, 0, [(0, 5)]), (5, 2, [(0, 2), (2, 4), (4, 5)]), (4, 2, [(0, 2), (2, 4)]), (3, 9, [(0, 3)])],
)
def test_masks_are_refreshed_between_segments(steps, every, segments):
    assert list(_segments(steps, every)) == segments


@pytest.mark.parametrize(
    ("variant", "scale", "expected"),
    [
        # Group means are 0.5 and 0.3; sample standard deviations √(1/3) and 0.4.
        ("grpo", "variant", [[0.5 * 3**0.5, -0.5 * 3**0.5], [1.5, -0.5]]),
        ("dr_grpo", "variant", [[0.5, -0.5], [0.6, -0.2]]),
        ("grpo", "none", [[0.5, -0.5], [0.6, -0.2]]),
        # Against the mean of the other three.
        ("grpo", "rloo", [[2 / 3, -2 / 3], [0.8, -0.8 / 3]]),
    ],
)
def test_advantages_as_configured(variant, scale, expected):
    advantage = {"combine": "sum_then_normalise", "scale": scale, "min_std": 1e-4}
    rl = ConfigDict({"advantage": advantage, "loss": {"variant": variant}})
    found = _advantage(rl)(REWARDS, ONE, valid=VALID)
    np.testing.assert_allclose(np.asarray(found)[:, :2], expected, rtol=1e-4)


def test_a_minimum_spread_mutes_noise():
    advantage = {"combine": "sum_then_normalise", "scale": "group", "min_std": 0.5}
    found = _advantage(ConfigDict({"advantage": advantage, "loss": {"variant": "grpo"}}))(
        REWARDS, ONE, valid=VALID
    )
    assert np.abs(found[0]).min() > 0.8
    assert not np.asarray(found[1]).any()


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
