"""The command line: what a user gets wrong is one sentence and exit code 2."""

import importlib.util
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
        (
            ["--config=experiments/configs/missing.py", "--workdir=x"],
            "no file experiments/configs/missing.py\n",
        ),
        ([CONFIG], "--workdir=<folder>"),
        ([CONFIG, "--workdir=x", "--config.rl.loss.variant=grpa"], "did you mean 'grpo'?"),
        ([CONFIG, "--topology=v5e:2x2"], "say --dry_run as well"),
        ([CONFIG, "--coordinator=localhost:1234"], "belong together: give all three"),
        ([CONFIG, "--coordinator=localhost", "--num_processes=2", "--process_id=0"], "say host:port"),
        ([CONFIG, "--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "they count from 0"),
        ([CONFIG, "--distributed"], "nothing here tells of other processes"),
        ([CONFIG, "--dry_run", "--topology=v9:2x2"], "begins with its generation, v5e, v5p, v6e, tpu7x"),
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


# One arm's rollout and update: what a policy compiles.
POLICY = [CONFIG, "--dry_run", "--topology=v5e:2x2", "--config.stages=('rl',)", "--config.arms=('mmrpt',)"]
NEEDS_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra tpu")


@NEEDS_LIBTPU
def test_a_mesh_that_the_slice_does_not_have_is_one_sentence():
    result = launch(*POLICY, "--config.mesh.fsdp=3")
    assert result.returncode == 2
    assert "fsdp=3, tensor=1 does not cover the 4 devices" in result.stderr


@NEEDS_LIBTPU
def test_a_dry_run_for_a_slice_says_what_every_program_needs():
    result = launch(*POLICY)
    assert result.returncode == 0, result.stderr
    placement, _, programs = result.stdout.partition("MMRPT on scenes on v5e:2x2: 4 devices of 16 GiB")
    assert "decoder/layers/query/kernel" in placement
    assert [line.split()[0] for line in programs.splitlines()[4:6]] == ["rollout", "update"]
    assert result.stdout.splitlines()[-1] == "all programs fit"


@NEEDS_LIBTPU
def test_what_does_not_fit_ends_with_exit_code_1():
    result = launch(*POLICY, "--config.rl.prompts_per_step=65536")
    assert result.returncode == 1, result.stderr
    assert result.stdout.splitlines()[-1].startswith("does not fit: ")
