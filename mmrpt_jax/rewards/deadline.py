"""A reward that hangs is cut off: what waits for a server, or for a pattern to match, must not hold up a run for ever.

A thread cannot be ended from outside, and while some C code runs, a regular expression for one, no other thread of
Python does. An alarm of the operating system is heard inside the function itself, in its loops, waits and matching. C
code that hears no signals is beyond that; the watchdog behind it needs no Python and ends the process.
"""

import contextlib
import faulthandler
import functools
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from mmrpt_jax.rewards.base import RewardFn

# Its descriptor: the objects of notebooks and test runners that stand for it have none.
_STDERR = 2


class OverdueError(TimeoutError):
    """A function did not return in time."""


class _Alarm(BaseException):
    """Is raised inside the function; no `Exception`, or its own `except Exception` would take it for one of its own."""


def in_time(
    rewards: Mapping[str, tuple[RewardFn, float]], seconds: float
) -> Mapping[str, tuple[RewardFn, float]]:
    """Rewards that raise `OverdueError` where they take longer than `seconds` for one batch; 0 sets no limit.

    A reward that cannot even be interrupted ends the process with exit code 1 after twice that time, and the stack of
    every thread on stderr. To be called in the main thread, the one that Python hears signals in.
    """
    if not seconds:
        return rewards
    return {
        name: (functools.partial(_call, reward, seconds), weight)
        for name, (reward, weight) in rewards.items()
    }


def _call(reward: RewardFn, seconds: float, **columns: Any) -> Any:
    with deadline(seconds):
        return reward(**columns)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Inside, no more than `seconds` may pass.

    Raises:
        OverdueError: they have; the traceback shows where the time went.
    """

    def ring(*_: object) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_STDERR)
    try:
        # Again and again: whoever catches everything catches the first alarm, too.
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 10)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Alarm as alarm:
        raise OverdueError(f"did not return within {seconds:g} s") from alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
