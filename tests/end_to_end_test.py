"""The whole method in miniature: what it leaves behind, running it twice, stopping it half-way, and data from disk."""

import json
import shutil

import pytest

from mmrpt_jax.data.records import write_records
from mmrpt_jax.data.scene_source import SceneSource
from mmrpt_jax.models.packing import pack_lengths
from mmrpt_jax.reporting.jsonl import JsonLines, read_jsonl
from mmrpt_jax.stages.mmrpt import reinforce
from mmrpt_jax.stages.mmrpt.pipeline import run_experiment
from mmrpt_jax.training import answers

# What a machine's pace decides; everything else is a function of the seed.
TIMING = {"seconds_per_step", "eta_seconds", "host_memory_bytes", "recompilations"}


def untimed(folder):
    lines = [
        {key: value for key, value in line.items() if key not in TIMING}
        for line in read_jsonl(folder / "metrics.jsonl")
    ]
    return sorted(lines, key=lambda line: (line["stage"], line["step"]))


def copy_without(arm, finished, folder):
    """Copies a finished run as it stood before its last arm: nothing of that arm, and no results."""
    # Whoever looks at the finished run may be writing its config anew.
    left_out = shutil.ignore_patterns(f"{arm}*", "results.*", "metrics.jsonl", "*.partial")
    shutil.copytree(finished, folder, ignore=left_out)
    lines = JsonLines(folder / "metrics.jsonl")
    for line in read_jsonl(finished / "metrics.jsonl"):
        if not line["stage"].startswith(arm):
            lines.append(line)
    lines.close()
    return folder


def test_a_run_leaves_everything_a_reader_wants(finished_run):
    for name in (
        "results.json",
        "results.txt",
        "config.json",
        "versions.json",
        "tokenizer.json",
        "metrics.jsonl",
    ):
        assert (finished_run / name).stat().st_size > 0, name
    assert len(list((finished_run / "overlays" / "dependency").glob("*.png"))) == 2
    assert list((finished_run / "tensorboard").glob("*/events*"))


def test_results_hold_a_row_per_arm_and_every_measure(finished_run):
    rows = json.loads((finished_run / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["base", "sft", "mmrpt"]
    for row in rows:
        for world in ("biased", "flipped"):
            measures = [f"fill/{world}/{c}" for c in ("right", "swapped", "none")]
            for measure in (*measures, f"cloze/{world}", f"finetuned/{world}"):
                assert 0.0 <= row[measure] <= 1.0, measure
        # Each is fine-tuned from its own parameters.
        assert (finished_run / "arms" / row["arm"] / "finetune").is_dir()
    assert rows[0]["train_flops"] == 0
    assert rows[1]["train_flops"] == rows[2]["train_flops"] > 0


def test_completions_show_prompt_span_answers_rewards_and_advantages(finished_run):
    lines = read_jsonl(finished_run / "arms" / "mmrpt" / "completions.jsonl")
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert {line["step"] for line in lines} == set(range(5))
    first = lines[0]
    assert "[MASK]" in first["prompt"]
    assert first["masked_span"]
    assert len(first["answers"]) == len(first["advantages"]) == len(first["rewards"]["total"]) == 4


def test_a_finished_run_is_left_alone(config, finished_run):
    files = [path for path in finished_run.glob("**/*.safetensors")]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    run_experiment(config, str(finished_run))
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before


def test_stopped_between_checkpoints_and_started_again_ends_bit_for_bit_the_same(
    config, finished_run, tmp_path, monkeypatch
):
    make = reinforce.make_reinforcement_step

    def make_failing(*parts, **options):
        step = make(*parts, **options)

        def failing(state, batch):
            # Checkpoints come every second step: step 4 was taken, but its predecessor's checkpoint is that of 2.
            if int(state.step) == 3:
                raise KeyboardInterrupt
            return step(state, batch)

        return failing

    folder = copy_without("mmrpt", finished_run, tmp_path / "run")
    monkeypatch.setattr(reinforce, "make_reinforcement_step", make_failing)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, str(folder))
    monkeypatch.undo()
    run_experiment(config, str(folder))

    arm = "arms/mmrpt"
    for name in ("weights.safetensors", "completions.jsonl"):
        assert (folder / arm / name).read_bytes() == (finished_run / arm / name).read_bytes(), name
    assert untimed(folder) == untimed(finished_run)
    assert (folder / "results.txt").read_text() == (finished_run / "results.txt").read_text()


def test_records_on_disk_go_the_same_way(config, tmp_path, monkeypatch):
    scenes = SceneSource("biased", split="train", size=24)
    data = tmp_path / "data"
    write_records(
        data, "scenes", {"train": (scenes[i] for i in range(16)), "dev": (scenes[i] for i in range(16, 24))}
    )
    config = config.copy_and_resolve_references()
    config.data.update(kind="records", path=str(data))
    config.arms = ("base", "mmrpt")
    config.finetune.steps = 0
    # Untrained, nearly all answers are cut off; those that are not share a row.
    config.rl.update(steps=2, train_on_truncated=False, packed_lengths=(16,))
    packed = []
    monkeypatch.setattr(answers, "pack_lengths", lambda *of: packed.append(pack_lengths(*of)) or packed[-1])
    run_experiment(config, str(tmp_path / "run"))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["base", "mmrpt"]
    assert all(0.0 <= row["fill/dev/right"] <= 1.0 for row in rows)
    assert [packing.branch.shape for packing in packed] == [(8, 16)] * 2
