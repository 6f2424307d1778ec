"""Two processes of four virtual devices each give what one process of eight gives; if one is killed, the other ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.training.processes import HEARTBEAT_TIMEOUT_S
from tests.end_to_end_test import TIMING

# Seconds that two processes of a miniature may take, a survivor to end, and two processes that only talk.
WHOLE_RUN, SURVIVAL, PRIMITIVES = 900, HEARTBEAT_TIMEOUT_S + 60, 300
# Of a training that is to be stopped or killed: a request takes seconds to reach all processes, a step far less.
ENDLESS = "caption.steps=100000"
# Sums over devices are added in another order between processes than inside one.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folder, *overrides, config="tests/miniature.py", processes=2):
    """The processes of one run, of eight devices in all; what each says is in `folder`.0 and so on."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(8 // processes),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    flags = [f"--config={config}", f"--workdir={folder}", *(f"--config.{override}" for override in overrides)]
    command, started = [sys.executable, "-m", "experiments.launch", *flags], []
    together = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={processes}"]
    for number in range(processes):
        told = [*together, f"--process_id={number}"] if processes > 1 else []
        with open(said_in(folder, number), "w") as said:
            started.append(
                subprocess.Popen([*command, *told], env=environment, stdout=said, stderr=subprocess.STDOUT)
            )
    return started


def told_by_flags():
    """What each of two processes is told of the other: arguments and environment."""
    address = f"127.0.0.1:{free_port()}"
    return [([str(number), address], {}) for number in range(2)]


def told_by_slurm():
    """As `told_by_flags`, from what SLURM puts into the environment of two tasks on a node."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    tasks = [{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(2)]
    return [([str(number)], job | task) for number, task in enumerate(tasks)]


@pytest.fixture(scope="module", params=[told_by_flags, told_by_slurm])
def seen(request):
    """What `two_processes.py` found as each of two processes."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-m", "tests.two_processes"]
    processes = [
        subprocess.Popen([*command, *arguments], env=environment | more, stdout=subprocess.PIPE, text=True)
        for arguments, more in request.param()
    ]
    try:
        said = [process.communicate(timeout=PRIMITIVES)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    return [json.loads(text.splitlines()[-1]) for text in said]


def test_one_process_writes_and_what_it_found_holds(seen):
    assert [found["writer"] for found in seen] == [True, False]
    assert [found["agreed"] for found in seen] == [[True, False]] * 2


@pytest.mark.parametrize("mesh", ["data", "fsdp", "tensor", "across"])
def test_rows_come_together_in_the_order_of_the_batch(mesh, seen):
    # Where `tensor` alone splits, both processes hold all rows.
    shares = [range(8)] * 2 if mesh == "across" else [range(4), range(4, 8)]
    padded = [row if mesh == "across" or row > 3 else 0 for row in range(8)]
    for share, process in zip(shares, seen, strict=True):
        found = process[mesh]
        assert found["rows"] == list(share)
        assert found["placed"] == [[row, row, last] for row, last in enumerate(padded)]
        assert found["image"] == [[0, 0 if mesh == "across" or row > 3 else -1] for row in range(8)]
        assert found["own"] == [[4 * row, 4 * row + 2] for row in share]
        assert found["whole"] == [[4 * row, 4 * row + 2] for row in range(8)]
        assert found["gathered"] == [10 * row for row in range(8)]
        assert found["most"] == 4
        assert found["locally"] == [row**2 for row in share][: seen.index(process) + 1]


def said_in(folder, number):
    return folder.with_name(f"{folder.name}.{number}")


@pytest.fixture
def started():
    """Like `start`; whatever happens, nothing is left running."""
    running = []

    def begin(*args, **options):
        new = start(*args, **options)
        running.extend(new)
        return new

    yield begin
    for process in running:
        process.kill()
        process.wait()


def finish(processes, folder):
    deadline = time.monotonic() + WHOLE_RUN
    for number, process in enumerate(processes):
        code = process.wait(timeout=max(deadline - time.monotonic(), 1))
        assert code == 0, said_in(folder, number).read_text()[-3000:]


def send(number, processes, folder, *, to, step):
    """Sends one of the processes a signal once they have written about `step`."""
    deadline, metrics = time.monotonic() + WHOLE_RUN, folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < step:
        assert all(process.poll() is None for process in processes), said_in(folder, 0).read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[to].send_signal(number)


def steps_of(folder):
    """What each step of each stage found, without what the machine's pace decides."""
    return {
        (line["stage"], line["step"]): {name: x for name, x in line.items() if name not in {*TIMING, "stage"}}
        for line in read_jsonl(folder / "metrics.jsonl")
    }


def assert_equal_steps(found, expected, stages=None, most=None):
    """That both found the same in every step: of all stages or of some, up to the end or to step `most`."""
    steps = steps_of(found)
    wanted = {
        (stage, step): values
        for (stage, step), values in steps_of(expected).items()
        if (stages is None or stage in stages) and (most is None or step <= most)
    }
    assert steps.keys() == wanted.keys()
    for step, values in wanted.items():
        assert steps[step].keys() == values.keys()
        for name, value in values.items():
            np.testing.assert_allclose(steps[step][name], value, **TOLERANCE, err_msg=f"{step} {name}")


def rows_of(folder):
    """Measure -> value of each arm."""
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {row.pop("arm"): row for row in rows}


def assert_equal_rows(found, expected, arms):
    rows, wanted_rows = rows_of(found), rows_of(expected)
    assert list(rows) == list(arms)
    for arm in arms:
        assert rows[arm].keys() == wanted_rows[arm].keys()
        for name, value in wanted_rows[arm].items():
            np.testing.assert_allclose(rows[arm][name], value, **TOLERANCE, err_msg=f"{arm} {name}")


def answers_of(folder, arm):
    fields = ("step", "prompt", "image", "answers")
    return [
        [line[field] for field in fields] for line in read_jsonl(folder / "arms" / arm / "completions.jsonl")
    ]


def test_two_processes_give_what_one_gives(config, finished_run, tmp_path, started):
    # An arm that imitates runs what this one warms up with.
    folder, alone = tmp_path / "two", "arms=('mmrpt',)"
    finish(started(folder, alone, f"compilation_cache={config.compilation_cache}"), folder)
    assert_equal_steps(folder, finished_run, {"caption", "mmrpt_warmup", "mmrpt", "mmrpt_finetune"})
    assert_equal_rows(folder, finished_run, ["mmrpt"])
    assert answers_of(folder, "mmrpt") == answers_of(finished_run, "mmrpt")
    # One of them talks.
    assert "rl (mmrpt)" in said_in(folder, 0).read_text()
    assert "rl (mmrpt)" not in said_in(folder, 1).read_text()


def test_two_processes_answer_and_draw_as_one_does(lvrpo_config, finished_lvrpo_run, tmp_path, started):
    # An arm that imitates runs what the base is trained with.
    folder, arms = tmp_path / "two", "arms=('base','lvrpo')"
    cache = f"compilation_cache={lvrpo_config.compilation_cache}"
    finish(started(folder, arms, cache, config="tests/miniature.py:lvrpo"), folder)
    assert_equal_steps(folder, finished_lvrpo_run, {"pretrain", "lvrpo"})
    assert_equal_rows(folder, finished_lvrpo_run, ["base", "lvrpo"])
    assert answers_of(folder, "lvrpo") == answers_of(finished_lvrpo_run, "lvrpo")


def test_stopped_as_two_processes_and_gone_on_with_as_one_on_another_mesh(config, tmp_path, started):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    captions = ("stages=('caption',)", ENDLESS, f"compilation_cache={config.compilation_cache}")

    def train_until(step, folder, *overrides, **options):
        processes = started(folder, *captions, *overrides, **options)
        send(signal.SIGTERM, processes, folder, to=-1, step=step)
        finish(processes, folder)
        for number in range(len(processes)):
            assert "caption: stopped after step" in said_in(folder, number).read_text()
        return len(steps_of(folder))

    together = train_until(7, parts)
    alone = train_until(together + 7, parts, "mesh.data=2", "mesh.fsdp=4", processes=1)
    assert alone >= together + 7
    train_until(alone, whole, processes=1)
    assert_equal_steps(parts, whole, most=alone)


@pytest.mark.parametrize("victim", [1, 0])
def test_a_process_whose_companion_is_killed_ends_and_says_why(victim, config, tmp_path, started):
    folder, cache = tmp_path / "orphaned", f"compilation_cache={config.compilation_cache}"
    processes = started(folder, "stages=('caption',)", ENDLESS, cache)
    send(signal.SIGKILL, processes, folder, to=victim, step=3)
    survivor = 1 - victim
    assert processes[survivor].wait(timeout=SURVIVAL) != 0
    said = said_in(folder, survivor).read_text()
    assert "run is gone, or a device failed" in said or "another task died" in said
