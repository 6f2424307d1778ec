import json

import pytest
from ml_collections import ConfigDict

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.workdir import write_identity


@pytest.fixture
def config():
    return ConfigDict({"seed": 3, "stages": ("caption",), "log_every": 1, "rl": {"steps": 5, "kl": None}})


def test_config_and_versions_are_kept(config, tmp_path):
    write_identity(config, tmp_path)
    expected = {"seed": 3, "stages": ["caption"], "log_every": 1, "rl": {"steps": 5, "kl": None}}
    assert json.loads((tmp_path / "config.json").read_text()) == expected
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert {"jax", "flax", "optax", "orbax-checkpoint", "seed", "devices"} <= versions.keys()
    assert versions["seed"] == 3 and len(versions["devices"]) == 8


def test_what_is_told_and_which_stages_run_may_change(config, tmp_path):
    write_identity(config, tmp_path)
    config.stages, config.log_every = ("caption", "score"), 7
    write_identity(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["log_every"] == 7


def test_limits_may_be_raised_where_they_ended_a_run(config, tmp_path):
    config.rl.reward_timeout, config.train = 600.0, ConfigDict({"max_skipped": 10})
    write_identity(config, tmp_path)
    config.rl.reward_timeout, config.train.max_skipped = 0.0, 77
    write_identity(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["max_skipped"] == 77
    config.rl.steps += 1
    with pytest.raises(ConfigError, match=r"another config\.rl"):
        write_identity(config, tmp_path)


def test_another_experiment_is_refused(config, tmp_path):
    write_identity(config, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.rl.steps = 6
    with pytest.raises(
        ConfigError, match=r"holds an experiment with another config\.rl: go on with that, or"
    ):
        write_identity(config, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
