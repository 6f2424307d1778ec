"""The benchmark in miniature: what it counts and what it writes, not how fast anything is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.benchmarks import update
from experiments.benchmarks.common import timing
from experiments.benchmarks.update import Work, measure, wider
from experiments.configs import mmrpt_scenes
from mmrpt_jax.stages.opening import model_config
from tests.miniature import miniature_config


def test_rows_follow_from_times(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))

    # A call moves the clock on by as many seconds as it says, and the clock's own reading by one.
    def lasting(seconds):
        return lambda: [next(clock) for _ in range(seconds - 1)]

    product, work = Work(lasting(2), 4e9), Work(lasting(10), 5e9)
    first, second = measure(product, {"work": work}, repeats=3)
    assert first == dict(zip(update.COLUMNS, ("product", 4.0, 2000, 2000, 2000, 2.0, 1.0), strict=True))
    assert second == dict(zip(update.COLUMNS, ("work", 5.0, 10_000, 10_000, 10_000, 0.5, 0.25), strict=True))


def test_the_wider_model_is_wider():
    scenes = mmrpt_scenes.get_config()
    narrow, wide = (model_config(config, 1024) for config in (scenes, wider(scenes)))
    assert wide.decoder.width == 4 * narrow.decoder.width == wide.decoder.heads * wide.decoder.head_dim
    assert wide.vision.transformer.mlp == 4 * narrow.vision.transformer.mlp


def test_the_command_writes_its_table(monkeypatch, tmp_path, capsys):
    config = miniature_config()
    config.model.decoder.layers = config.model.vision.transformer.layers = 1
    # Compiled once, for both rows.
    work = update.policy_work(config, model_config(config, config.tokenizer.vocab_size))
    monkeypatch.setattr(update, "policy_work", lambda *_: work)
    monkeypatch.setattr(update, "_PRODUCT", 8)
    assert update.main([f"--out={tmp_path / 'update'}", "--repeats=2"]) == 0
    rows = json.loads((tmp_path / "update.json").read_text())["rows"]
    assert [row["work"] for row in rows] == ["product", "scenes", "4 times as wide"]
    assert all(set(row) == set(update.COLUMNS) for row in rows)
    assert "of product" in capsys.readouterr().out


def test_one_measurement_is_refused(capsys):
    assert update.main(["--repeats=1"]) == 2
    assert "1 measurement has no spread" in capsys.readouterr().err


def test_the_update_of_a_size_sees_its_prompt_and_image(monkeypatch, tmp_path):
    monkeypatch.setattr(update, "_PRODUCT", 8)
    shape = ["--group=2", "--prompt=600", "--answer=4"]
    assert (
        update.main(["--size=tiny", "--dtype=bfloat16", *shape, f"--out={tmp_path / 'it'}", "--repeats=2"])
        == 0
    )
    document = json.loads((tmp_path / "it.json").read_text())
    assert document["title"].startswith("Policy updates of tiny in bfloat16 on ")
    product, work = document["rows"]
    assert product["GFLOP"] == pytest.approx(2 * 8**3 / 1e9)
    assert work["work"] == "G=2 P=600 R=4"
    # Width 32; per token of two layers: query and out, key and value of half the width, an MLP of 64 with a gate.
    layer = 32 * (32 + 32 + 16 + 16 + 3 * 64)
    decoder = 2 * (600 * (layer + 2 * 32 * 600) + 8 * (layer + 2 * 32 * 604)) + 8 * 32 * 1024
    # 48 x 48 patches of two frames through one layer; four of them are a visual token.
    tower = 2304 * (2 * 14 * 14 * 3 * 32 + 32 * (4 * 32 + 3 * 32) + 2 * 32 * 2304)
    connector = 576 * (128 * 128 + 128 * 32)
    assert work["GFLOP"] == pytest.approx(3 * 2 * (decoder + tower + connector) / 1e9)


def test_packed_answers_are_as_long_as_they_are_asked_to_be(monkeypatch):
    monkeypatch.setattr(update, "policy_work", lambda config, model, packing=None: packing)
    options = SimpleNamespace(size="tiny", dtype="float32", group=64, prompt=600, answer=100, filled=0.3)
    alone, packed = update.sized_works(options).values()
    assert alone is None
    lengths = np.bincount(packed.branch[0], minlength=64)
    assert lengths.max() <= 60 and lengths.min() >= 1 and abs(lengths.mean() - 30) < 5


def test_packed_answers_need_a_model(capsys):
    assert update.main(["--filled=0.5"]) == 2
    assert "--filled packs the answers of an update with --size" in capsys.readouterr().err
