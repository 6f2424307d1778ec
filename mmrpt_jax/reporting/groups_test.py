import numpy as np
import pytest

from mmrpt_jax.reporting.groups import GroupLog
from mmrpt_jax.reporting.jsonl import read_jsonl


def append(log, step, prompts, word):
    log.append(
        step,
        per_prompt={"prompt": prompts},
        per_member={"said": [[word, word]] * len(prompts), "advantages": np.zeros((len(prompts), 2))},
        rewards={"exact": np.tile([1.0, np.nan], (len(prompts), 1))},
    )


def test_a_line_by_hand(tmp_path):
    log = GroupLog(tmp_path / "words.jsonl", per_step=1)
    append(log, 3, ["a", "b"], "yes")
    log.close()
    assert (tmp_path / "words.jsonl").read_text() == (
        '{"step": 3, "prompt": "a", "said": ["yes", "yes"], "advantages": [0.0, 0.0], '
        '"rewards": {"exact": [1.0, null]}}\n'
    )


def test_a_resumed_run_writes_its_steps_anew(tmp_path):
    for first, last, word in ((0, 4, "early"), (2, 4, "late"), (3, 5, "latest")):
        log = GroupLog(tmp_path / "words.jsonl", per_step=2)
        for step in range(first, last):
            append(log, step, ["a", "b"], word)
        log.close()
    lines = read_jsonl(tmp_path / "words.jsonl")
    assert [(line["step"], line["prompt"], line["said"][0]) for line in lines] == [
        (0, "a", "early"),
        (0, "b", "early"),
        (1, "a", "early"),
        (1, "b", "early"),
        (2, "a", "late"),
        (2, "b", "late"),
        (3, "a", "latest"),
        (3, "b", "latest"),
        (4, "a", "latest"),
        (4, "b", "latest"),
    ]


def test_a_refused_step_drops_nothing(tmp_path):
    log = GroupLog(tmp_path / "words.jsonl", per_step=2)
    append(log, 1, ["a"], "yes")
    log.close()
    resumed = GroupLog(tmp_path / "words.jsonl", per_step=2)
    with pytest.raises(ValueError, match=r"words: said has shape \(1,\), .* ask for \(2, 2\)"):
        resumed.append(
            1,
            per_prompt={"prompt": ["a", "b"]},
            per_member={"said": ["yes"], "advantages": np.zeros((2, 2))},
            rewards={},
        )
    resumed.close()
    assert [line["step"] for line in read_jsonl(tmp_path / "words.jsonl")] == [1]
