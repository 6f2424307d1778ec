"""The command line: what a user gets wrong is one sentence and exit code 2."""

import os
import subprocess
import sys

import pytest

CONFIG = "--config=experiments/configs/mmrpt_scenes.py"


def launch(*arguments):
    command = [sys.executable, "-m", "experiments.launch", *arguments]
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(command, env=quick, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([CONFIG, "--config.rl.group_sise=4"], 'Did you mean "group_size" instead of "group_sise"?'),
        (["--config=experiments/configs/missing.py", "--workdir=x"], "missing.py"),
        ([CONFIG], "--workdir=<folder>"),
        ([CONFIG, "--workdir=x", "--config.rl.loss.variant=grpa"], "did you mean 'grpo'?"),
        (
            [CONFIG, "--workdir=x", "--config.init.weights=nowhere.safetensors"],
            "there is no file nowhere.safetensors",
        ),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence):
    result = launch(*arguments)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run_prints_sizes_and_runs_nothing(tmp_path):
    result = launch(CONFIG, "--dry_run", f"--workdir={tmp_path / 'never'}")
    assert result.returncode == 0
    for line in (
        "parameters",
        "trained",
        "policy step",
        "tokens per update",
        "memory of an update",
        "arm mmrpt",
    ):
        assert line in result.stdout
    assert not (tmp_path / "never").exists()
