"""LVRPO in miniature: what it leaves behind, and stopping it half-way."""

import json

import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.lvrpo import align
from mmrpt_jax.stages.lvrpo.pipeline import run_experiment
from tests.end_to_end_test import copy_without, untimed


def test_a_run_leaves_everything_a_reader_wants(finished_lvrpo_run):
    for name in ("results.json", "results.txt", "config.json", "versions.json", "metrics.jsonl"):
        assert (finished_lvrpo_run / name).stat().st_size > 0, name
    picture = np.asarray(Image.open(finished_lvrpo_run / "drawings.png"))
    assert picture.ndim == 3 and picture.std() > 0
    arm = finished_lvrpo_run / "arms" / "lvrpo"
    assert sorted(path.name for path in (arm / "drawings").iterdir()) == [
        "step-000000.png",
        "step-000002.png",
    ]
    drawings = read_jsonl(arm / "drawings.jsonl")
    assert {line["step"] for line in drawings} == set(range(3))
    assert len(drawings[0]["advantages"]) == len(drawings[0]["rewards"]["instruction_strict"]) == 2
    answers = read_jsonl(arm / "completions.jsonl")
    assert answers[0]["prompt"].endswith("?") and answers[0]["true_reply"]


def test_results_hold_a_row_per_arm_and_every_measure(finished_lvrpo_run):
    rows = json.loads((finished_lvrpo_run / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["base", "sft", "lvrpo"]
    for row in rows:
        for measure in ("drawn", "exact", "soft", "validity", "diversity"):
            assert 0.0 <= row[f"{measure}/biased"] <= 1.0 and 0.0 <= row[f"{measure}/held_out"] <= 1.0
        assert 0.0 <= row["questions/flipped"] <= 1.0
        assert row["gap"] == pytest.approx(row["verdicts/agreement"] - row["drawn/biased"])
        assert {
            "cycle/f1",
            "cycle_true/f1",
            "effective_rank",
            "gradient_cosine/decoder/attention",
        } <= row.keys()
    # Six tags weigh the same.
    tags = [share for name, share in rows[0].items() if name.startswith("drawn/biased/")]
    assert len(tags) == 6 and rows[0]["drawn/biased"] == pytest.approx(np.mean(tags))
    # A step of imitation costs less: more of them are bought, but for rounding, with the same operations.
    assert rows[0]["train_flops"] == 0
    assert rows[1]["train_flops"] == pytest.approx(rows[2]["train_flops"], rel=0.2)


def test_stopped_between_checkpoints_and_started_again_ends_bit_for_bit_the_same(
    lvrpo_config, finished_lvrpo_run, tmp_path, monkeypatch
):
    make = align.make_reinforcement_step

    def make_failing(*parts, **options):
        step = make(*parts, **options)

        def failing(state, batch):
            # Checkpoints come every second step: the third is taken and written down, and lost.
            stopped, after = int(state.step) == 2, step(state, batch)
            if stopped:
                raise KeyboardInterrupt
            return after

        return failing

    folder = copy_without("lvrpo", finished_lvrpo_run, tmp_path / "run")
    monkeypatch.setattr(align, "make_reinforcement_step", make_failing)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(lvrpo_config, str(folder))
    monkeypatch.undo()
    run_experiment(lvrpo_config, str(folder))

    arm = "arms/lvrpo"
    for name in ("weights.safetensors", "completions.jsonl", "drawings.jsonl", "drawings/step-000002.png"):
        assert (folder / arm / name).read_bytes() == (finished_lvrpo_run / arm / name).read_bytes(), name
    assert untimed(folder) == untimed(finished_lvrpo_run)
    assert (folder / "results.txt").read_text() == (finished_lvrpo_run / "results.txt").read_text()
