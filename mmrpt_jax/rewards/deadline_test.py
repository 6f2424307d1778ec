import contextlib
import itertools
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from mmrpt_jax.rewards import RewardError, score
from mmrpt_jax.rewards.deadline import OverdueError, call_in_time, in_time


def waits(completions, **columns):
    time.sleep(60)


def loops(completions, **columns):
    for _ in itertools.count():
        pass


def matches_for_ever(completions, **columns):
    """Backtracks through 2^60 ways to split the letters, in C, holding the interpreter."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def swallows(completions, **columns):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(60)


def graded(reward, seconds):
    rewards = in_time({"fine": (lambda completions, **_: [1.0], 1.0), "stuck": (reward, 1.0)}, seconds)
    return score(rewards, prompts=["p"], completions=["c"], columns={}, gate=None)


@pytest.mark.parametrize("reward", [waits, loops, matches_for_ever, swallows])
def test_what_hangs_is_cut_off_and_named(reward):
    with pytest.raises(RewardError, match=r"^reward 'stuck' did not return within 0.2 s$") as caught:
        graded(reward, 0.2)
    # The stack says where.
    assert reward.__name__ in [
        entry.name for entry in pytest.ExceptionInfo.from_exception(root(caught.value)).traceback
    ]


def root(error):
    while error.__cause__:
        error = error.__cause__
    return error


def test_what_returns_is_left_alone():
    before = signal.getsignal(signal.SIGALRM)
    assert graded(lambda completions, **_: [0.5], 60).total == [1.5]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    rewards = {"a": (waits, 1.0)}
    assert in_time(rewards, 0) is rewards


def test_errors_of_the_reward_stay_its_own():
    def broken(completions, **columns):
        raise KeyError("answer")

    with pytest.raises(RewardError, match="raised KeyError: 'answer' on example 0"):
        graded(broken, 60)


def test_time_is_counted_anew():
    for _ in range(3):
        call_in_time(0.4, time.sleep, 0.2)
    with pytest.raises(OverdueError):
        call_in_time(0.1, time.sleep, 60)


def test_what_hears_no_alarm_ends_the_process():
    program = """
        import collections, itertools
        from mmrpt_jax.rewards import deadline

        def deaf():
            collections.deque(itertools.repeat(None), maxlen=0)

        deadline._PATIENCE = 0.5
        deadline.call_in_time(0.5, deaf)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1
    assert "Timeout" in found.stderr and "in deaf" in found.stderr
