"""A process that is killed, or asked to stop, and started again with the same command ends where a whole one does."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from mmrpt_jax.reporting.jsonl import read_jsonl

# Enough that a process is met seconds before its last one.
STEPS = 60
# Seconds that a start may take before it counts as hanging.
LONGEST = 600


def start(workdir, cache, *more):
    """The miniature's first stage from the command line, with checkpoints every second step."""
    overrides = [f"compilation_cache={cache}", "stages=('caption',)", f"caption.steps={STEPS}", *more]
    flags = ["--config=tests/miniature.py", *(f"--config.{override}" for override in overrides)]
    command = [sys.executable, "-m", "experiments.launch", *flags, f"--workdir={workdir}"]
    quick = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(command, env=quick, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    said, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    return said


def send(number, process, workdir, *, step):
    """Sends the process a signal once it has written about `step`."""
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < step):
        time.sleep(0.01)
    process.send_signal(number)
    return process


def test_killed_and_asked_to_stop_and_started_again(tmp_path):
    whole, parts, cache = tmp_path / "whole", tmp_path / "parts", tmp_path / "compiled"
    # Checkpoints change nothing: the whole one does without.
    finish(start(whole, cache, f"save_every={STEPS}"))
    killed = send(signal.SIGKILL, start(parts, cache), parts, step=7)
    killed.communicate(timeout=LONGEST)
    assert killed.returncode == -signal.SIGKILL
    said = finish(send(signal.SIGTERM, start(parts, cache), parts, step=14))
    assert re.search(rf"^caption: stopped after step \d+ of {STEPS}, which is saved", said, re.MULTILINE)
    assert not (parts / "base" / "complete.json").exists()
    finish(start(parts, cache))
    weights = "base/weights.safetensors"
    assert (parts / weights).read_bytes() == (whole / weights).read_bytes()
    assert json.loads((parts / "base" / "complete.json").read_text())["steps"] == STEPS
    lines = read_jsonl(parts / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    losses = [line["loss"] for line in read_jsonl(whole / "metrics.jsonl")]
    assert [line["loss"] for line in lines] == losses
