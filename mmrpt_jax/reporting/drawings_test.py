import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.reporting.drawings import DrawingsWriter
from mmrpt_jax.reporting.jsonl import read_jsonl


def step_of(groups, shade=0):
    """Arguments of one step with `groups` prompts and two drawings each."""
    return {
        "prompts": [f"prompt {b}" for b in range(groups)],
        "images": np.full((groups, 2, 8, 8, 3), (0, 99, shade), np.uint8),
        "rewards": {
            "strict": np.arange(2.0 * groups).reshape(groups, 2),
            "known": np.full((groups, 2), np.nan),
        },
        "advantages": np.tile([-1.0, 1.0], (groups, 1)),
    }


def pixels(path, colour):
    return int((np.asarray(Image.open(path)) == colour).all(-1).sum())


def test_lines_and_sheets_of_the_first_groups(tmp_path):
    writer = DrawingsWriter(tmp_path, per_step=2, sheet_every=2)
    for step in (1, 2, 3, 4):
        writer.write(step, **step_of(3))
    writer.close()
    lines = read_jsonl(tmp_path / "drawings.jsonl")
    assert [(line["step"], line["prompt"]) for line in lines] == [
        (step, f"prompt {b}") for step in (1, 2, 3, 4) for b in (0, 1)
    ]
    assert lines[0]["sheet"] is None
    assert lines[3] == {
        "step": 2,
        "prompt": "prompt 1",
        "sheet": "drawings/step-000002.png",
        "advantages": [-1.0, 1.0],
        "rewards": {"strict": [2.0, 3.0], "known": [None, None]},
    }
    sheets = sorted(path.name for path in (tmp_path / "drawings").iterdir())
    assert sheets == ["step-000002.png", "step-000004.png"]
    # Two groups of two drawings, not three.
    assert pixels(tmp_path / "drawings" / "step-000002.png", (0, 99, 0)) == 4 * 128 * 128


def test_a_resumed_run_draws_its_steps_anew(tmp_path):
    for first, last, shade in ((1, 4, 0), (2, 5, 200)):
        writer = DrawingsWriter(tmp_path, sheet_every=1)
        for step in range(first, last):
            writer.write(step, **step_of(1, shade))
        writer.close()
    assert [line["step"] for line in read_jsonl(tmp_path / "drawings.jsonl")] == [1, 2, 3, 4]
    for step, shade in ((1, 0), (2, 200), (3, 200), (4, 200)):
        assert pixels(tmp_path / "drawings" / f"step-{step:06d}.png", (0, 99, shade)) == 2 * 128 * 128


def test_no_sheets_where_none_are_asked_for(tmp_path):
    writer = DrawingsWriter(tmp_path, sheet_every=0)
    writer.write(20, **step_of(1))
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["drawings.jsonl"]
    assert [line["sheet"] for line in read_jsonl(tmp_path / "drawings.jsonl")] == [None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", np.zeros((2, 3, 8, 8, 3), np.uint8)),
        ("prompt", ["one"]),
        ("strict", np.zeros((3, 2))),
    ],
)
def test_shapes_that_disagree_are_refused_by_name(tmp_path, name, value):
    writer = DrawingsWriter(tmp_path, sheet_every=1)
    argument = {"prompt": "prompts", "strict": "rewards"}.get(name, name)
    given = step_of(2) | {argument: {name: value} if argument == "rewards" else value}
    with pytest.raises(ValueError, match="drawings: "):
        writer.write(1, **given)
    writer.close()
    assert read_jsonl(tmp_path / "drawings.jsonl") == []
    assert not (tmp_path / "drawings").exists()
