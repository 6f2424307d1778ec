"""A reward that hangs is cut off: what waits for a server, or for a pattern to match, must not hold up a run for ever.

A thread cannot be ended from outside, and while some C code runs, a regular expression for one, no other thread of
Python does. An alarm of the operating system is heard inside the function itself, in its loops, waits and matching. C
code that hears no signals is beyond that; the watchdog behind it needs no Python and ends the process.
"""

import faulthandler
import functools
import signal
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmrpt_jax.rewards.base import RewardFn

T = TypeVar("T")

# The watchdog gives so many seconds more, at least: a machine may be slow to hear.
_PATIENCE = 10.0
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

    A reward that cannot even be interrupted ends the process with exit code 1 after twice that time (or ten seconds
    more, if that is longer), and the stack of every thread on stderr. To be called in the main thread, the one that
    Python hears signals in.
    """
    if not seconds:
        return rewards
    return {
        name: (functools.partial(call_in_time, seconds, reward), weight)
        for name, (reward, weight) in rewards.items()
    }


def call_in_time(seconds: float, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Calls `function`, for `seconds` at most.

    Raises:
        OverdueError: it took longer; the traceback shows where the time went.
    """

    def ring(*_: object) -> None:
        raise _Alarm

    # One function, and no context manager: an alarm may ring in every line, and none must leave as what it is.
    before = signal.signal(signal.SIGALRM, ring)
    faulthandler.dump_traceback_later(seconds + max(seconds, _PATIENCE), exit=True, file=_STDERR)
    try:
        try:
            # Again and again: whoever catches everything catches the first alarm, too.
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 10)
            return function(*args, **kwargs)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Alarm as alarm:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise OverdueError(f"did not return within {seconds:g} s") from alarm
    finally:
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
