import os
import signal

import numpy as np
import pytest

from mmrpt_jax.data import images
from mmrpt_jax.data.scene_source import png
from mmrpt_jax.training.stopping import NEVER, StoppedError, StopRequest


@pytest.fixture
def stop():
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    request.listen()
    yield request
    signal.signal(signal.SIGTERM, before)


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


def test_at_once_where_nothing_is_to_be_saved(stop):
    with pytest.raises(StoppedError):
        ask()


def test_a_request_is_not_taken_for_a_damaged_image(stop, monkeypatch):
    monkeypatch.setattr(images, "_to_rgb", lambda *_: ask())
    with pytest.raises(StoppedError):
        images.decode_image(png(np.zeros((2, 2, 3), np.uint8)))


def loop(stop, *, error=None):
    """Asks in the middle, as a program does that is left alone until it asks itself."""
    with stop.deferred():
        assert not stop.heard()
        ask()
        assert stop.heard()
        if error:
            raise error


@pytest.mark.parametrize("error", [StoppedError("saved"), ZeroDivisionError("a bug")])
def test_inside_a_loop_it_waits_until_it_is_heard(stop, error):
    with pytest.raises(type(error), match=str(error)):
        loop(stop, error=error)


def test_left_waiting_it_stops_behind_the_loop(stop):
    with pytest.raises(StoppedError, match="from here"):
        loop(stop)


def test_nobody_asks():
    with NEVER.deferred():
        assert not NEVER.heard()
