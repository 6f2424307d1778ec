"""The benchmark in miniature: what it counts and what it writes, not how fast anything is."""

import json

from absl.testing import flagsaver

from experiments.benchmarks import update
from experiments.benchmarks.update import Work, measure, wider
from experiments.configs import mmrpt_scenes
from mmrpt_jax.stages.opening import model_config
from tests.miniature import miniature_config


def test_rows_follow_from_times(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(update.time, "perf_counter", lambda: next(clock))

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
    monkeypatch.setattr(update.mmrpt_scenes, "get_config", lambda: config)
    monkeypatch.setattr(update, "_PRODUCT", 8)
    with flagsaver.as_parsed(out=str(tmp_path / "update"), repeats="2"):
        update.main([])
    rows = json.loads((tmp_path / "update.json").read_text())["rows"]
    assert [row["work"] for row in rows] == ["product", "scenes", "4 times as wide"]
    assert all(set(row) == set(update.COLUMNS) for row in rows)
    assert "of product" in capsys.readouterr().out
