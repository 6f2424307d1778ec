import numpy as np
import pytest

from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.jsonl import read_jsonl


def step_of(groups):
    """Arguments of one step with `groups` prompts and two answers each."""
    return {
        "prompts": [f"prompt {b}" for b in range(groups)],
        "truths": [f"span {b}" for b in range(groups)],
        "answers": [[f"answer {b} {g}" for g in range(2)] for b in range(groups)],
        "rewards": {"exact": np.arange(2 * groups).reshape(groups, 2), "gain": np.full((groups, 2), np.nan)},
        "advantages": np.tile([-1.0, 1.0], (groups, 1)),
        "images": [None, *(f"scene-{b}" for b in range(1, groups))],
    }


def test_lines_are_capped_per_step_and_written_anew_by_a_resumed_run(tmp_path):
    for steps, groups in (((1, 2, 3), 3), ((2,), 1)):
        writer = CompletionsWriter(tmp_path, per_step=2)
        for step in steps:
            writer.write(step, **step_of(groups))
        writer.close()
    records = read_jsonl(tmp_path / "completions.jsonl")
    assert [(record["step"], record["prompt"]) for record in records] == [
        (1, "prompt 0"),
        (1, "prompt 1"),
        (2, "prompt 0"),
    ]
    assert records[1] == {
        "step": 1,
        "prompt": "prompt 1",
        "masked_span": "span 1",
        "answers": ["answer 1 0", "answer 1 1"],
        "rewards": {"exact": [2, 3], "gain": [None, None]},
        "advantages": [-1.0, 1.0],
        "image": "scene-1",
    }


def test_what_would_have_been_right_is_called_as_the_method_has_it(tmp_path):
    writer = CompletionsWriter(tmp_path, truth="true_reply")
    writer.write(1, **step_of(1))
    writer.close()
    (record,) = read_jsonl(tmp_path / "completions.jsonl")
    assert record["true_reply"] == "span 0" and "masked_span" not in record


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("images", "image", ["one"]),
        ("truths", "masked_span", ["a", "b", "c"]),
        ("advantages", "advantages", np.zeros((3, 2))),
        ("rewards", "exact", {"exact": np.zeros((2, 3))}),
    ],
)
def test_shapes_that_disagree_are_refused_by_name(tmp_path, name, field, value):
    writer = CompletionsWriter(tmp_path)
    with pytest.raises(ValueError, match=f"completions: {field} has shape"):
        writer.write(1, **step_of(2) | {name: value})
    writer.close()
    assert read_jsonl(tmp_path / "completions.jsonl") == []
