"""MMRPT in miniature from a published checkpoint to an exported one."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments import export
from experiments.configs import mmrpt_gemma3, mmrpt_qwen2_5_vl, mmrpt_smolvlm
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.records import write_records
from mmrpt_jax.data.scene_source import SceneSource, png
from mmrpt_jax.data.sidecar import open_sidecar
from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.checks import ConfigError, check_packing
from mmrpt_jax.stages.finished import read_config
from mmrpt_jax.stages.mmrpt.pipeline import run_experiment
from mmrpt_jax.stages.mmrpt.plan import describe_plan
from mmrpt_jax.stages.mmrpt.validate import check_config
from mmrpt_jax.stages.workdir import check_same_beginning
from tests.published_folders import write_qwen2_5_vl, write_smolvlm


@pytest.fixture(scope="module", params=[write_qwen2_5_vl, write_smolvlm])
def folder(request, write_tokenizer, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("published"), write_tokenizer)


def published_config(config, folder):
    """The miniature that begins with a checkpoint."""
    config = config.copy_and_resolve_references()
    config.init.update(hf=str(folder), weights="", tokenizer="")
    config.data.update(
        records=16,
        prompt_lengths=(256,),
        caption_lengths=(192,),
        branch_lengths=(64,),
        patch_counts=(64, 128),
    )
    config.caption.steps, config.overlays = 0, 1
    config.arms = ("base", "sft", "mmrpt")
    # The warm-up takes the steps of "sft".
    config.fill.warmup_steps = 0
    config.rl.update(steps=2, group_size=2)
    config.finetune.steps = 0
    config.evaluate.update(worlds=("biased",), fill_items=8, cloze_items=8)
    return config


IMAGES = (2, 1, 0, 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Scenes on disk, with two images of different sizes, with one, or with none."""
    scenes = SceneSource("biased", split="train", size=24)
    wide = png(np.tile(decode_image(*scenes[0]["images"])[16:48], (1, 2, 1)))

    def record(i):
        images = [*scenes[i]["images"], wide][: IMAGES[i % 4]]
        return scenes[i] | {"id": str(i), "images": images}

    path = tmp_path_factory.mktemp("data") / "set"
    splits = {"train": range(16), "dev": range(16, 24)}
    write_records(path, "scenes", {name: map(record, part) for name, part in splits.items()})
    return path


@pytest.fixture(scope="module")
def run(config, folder, dataset, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    config = published_config(config, folder)
    config.data.update(kind="records", path=str(dataset))
    run_experiment(config, str(workdir))
    return workdir


def test_every_stage_runs(run):
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["base", "sft", "mmrpt"]
    steps = [line for line in read_jsonl(run / "metrics.jsonl") if line["stage"] == "mmrpt"]
    assert steps[0]["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert (run / "overlays" / "dependency" / "000.png").exists()
    completions = list(read_jsonl(run / "arms" / "mmrpt" / "completions.jsonl"))
    answers = [answer for line in completions for answer in line["answers"]]
    # Placeholders of pictures are never sampled.
    assert answers
    assert not any(token in answer for answer in answers for token in ("image_pad", "<image>"))


def test_what_has_images_is_scored_and_masked(run):
    scores = {row["id"]: row for row in open_sidecar(run / "scores" / "records", "train")}
    assert sorted(map(int, scores)) == [i for i in range(16) if IMAGES[i % 4]]
    one, two = (len(scores[name]["patch_received"]) for name in ("1", "0"))
    assert one < two <= 2 * one
    masked = [int(row["id"]) for row in open_sidecar(run / "masks" / "dependency" / "records", "train")]
    assert {IMAGES[i % 4] for i in masked} == {1, 2}


def test_the_base_is_not_copied(run):
    assert not list((run / "base").glob("*.safetensors"))
    assert not (run / "arms" / "base" / "weights.safetensors").exists()


def test_an_untrained_arm_is_exported_as_it_came(run, folder, tmp_path):
    assert export.main(["--workdir", str(run), "--arm", "base", "--out", str(tmp_path / "out")]) == 0
    given, written = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert given.keys() == written.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(written[name], array)
    copied = {path.name for path in (tmp_path / "out").iterdir()}
    assert copied >= {"config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"}


def test_a_trained_arm_is_exported_with_what_it_learned(run, folder, tmp_path):
    assert export.main(["--workdir", str(run), "--arm", "sft", "--out", str(tmp_path / "out")]) == 0
    given, written = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    name = next(name for name in given if name.endswith(".1.mlp.up_proj.weight"))
    ours = load_file(run / "arms" / "sft" / "weights.safetensors")["decoder.layers.mlp.up.kernel"][1].T
    np.testing.assert_array_equal(written[name], ours)
    assert np.abs(written[name] - given[name]).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arm", "other"], "has no weights of an arm 'other': trained are base, mmrpt, sft"),
        (["--arm", "base", "--adapter"], "trained no adapters"),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, capsys, options, message):
    assert export.main(["--workdir", str(run), *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_our_own_is_not_exported(finished_run, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert export.main(["--workdir", str(finished_run), "--arm", "base", "--out", out]) == 2
    assert "began with a model of our own" in capsys.readouterr().err


def test_a_folder_that_is_there_is_kept(run, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert export.main(["--workdir", str(run), "--arm", "base", "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_plan_counts_the_checkpoint(config, folder):
    plan = describe_plan(published_config(config, folder))
    count = sum(array.size for array in load_file(folder / "model.safetensors").values())
    assert f"parameters            {count:,}" in plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init.hf": "/nowhere"}, "no directory /nowhere: give a local checkpoint, or hub:owner/name"),
        ({"init.weights": "w.safetensors"}, "config.init.weights and config.init.hf both say where to begin"),
        ({"data.patch_counts": ()}, "config.data.patch_counts is empty"),
        ({"data.patch_counts": (1023,)}, "config.data.patch_counts: 1023 is no multiple of"),
    ],
)
def test_wrong_configs_end_before_any_work(config, folder, changes, message):
    config = published_config(config, folder)
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_a_folder_that_cannot_run_is_told_before_any_work(config, folder, tmp_path):
    def told(message):
        with pytest.raises(ConfigError, match=message):
            check_config(published_config(config, broken))

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    check_config(published_config(config, broken))
    weights, numbers = broken / "model.safetensors", broken / "config.json"
    tensors, said = load_file(weights), numbers.read_text()
    norm = next(name for name in tensors if name.endswith("norm.weight"))
    save_file({name: array for name, array in tensors.items() if name != norm}, weights)
    told(f"missing {norm}")
    weights.unlink()
    told("no weights at")
    numbers.write_text("{")
    told(r"config\.json is not JSON")
    numbers.write_text("[]")
    told(r"config\.json holds no JSON object")
    save_file(tensors, weights)
    numbers.write_text(said)
    check_config(published_config(config, broken))
    for path in broken.glob("*.jinja"):
        path.unlink()
    told("chat")


def test_another_checkpoint_in_the_same_place_is_noticed(run, folder, tmp_path):
    config = read_config(run)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: array + 1 for name, array in tensors.items()}, other / "model.safetensors")
    config.init.hf = str(other)
    with pytest.raises(ConfigError, match="began with another checkpoint than the one in"):
        check_same_beginning(config, run)


def test_windows_and_packed_answers_do_not_go_together():
    sizes = {"width": 8, "layers": 2, "heads": 1, "kv_heads": 1, "head_dim": 8, "mlp": 8}
    tower, windows = TransformerConfig(**sizes), TransformerConfig(**sizes, local_layers=(True, False))
    gemma_like = lambda *_: VLMConfig(8, windows, VisionConfig(8, 8, 8, tower))  # noqa: E731
    check_packing(mmrpt_gemma3.get_config(), "rl", gemma_like)
    with pytest.raises(ConfigError, match=r"packed_lengths=.*: the model has sliding windows"):
        check_packing(mmrpt_qwen2_5_vl.get_config(), "rl", gemma_like)


@pytest.mark.parametrize("preset", [mmrpt_qwen2_5_vl, mmrpt_smolvlm, mmrpt_gemma3])
def test_presets_are_in_order(preset, folder):
    config = preset.get_config()
    config.init.hf, config.data.kind = str(folder), "scenes"
    check_config(config)
