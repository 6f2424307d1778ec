"""How a run ends: what the shell is told."""

import errno
import os

import pytest

from experiments import launch
from mmrpt_jax.training.stopping import StoppedError


def ends_with(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(launch.app, "run", fail)
    launch.run()


def test_asked_to_stop_is_no_failure(monkeypatch, capsys):
    ends_with(StoppedError("caption: stopped after step 3 of 9"), monkeypatch)
    assert capsys.readouterr().out == "caption: stopped after step 3 of 9\n"


def test_a_full_disk_is_one_sentence(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        ends_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/checkpoints"), monkeypatch)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no space is left for runs/a/checkpoints") and said.count("\n") == 1


def test_other_errors_are_shown_whole(monkeypatch):
    with pytest.raises(PermissionError):
        ends_with(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"), monkeypatch)
