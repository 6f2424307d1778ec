"""Asked to stop, a run finishes its step, saves and ends; the same command goes on from there."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class StoppedError(BaseException):
    """The run ended early because it was asked to; the message says where it will go on.

    No `Exception`: it may be raised anywhere, and whoever takes all of those for damaged input would go on with less.
    """


class StopRequest:
    """Whether this run was asked to stop. Nobody asks until it listens.

    Where there is a loop, it is the loop that stops, between two steps. Elsewhere there is nothing to save, since a
    stage is complete or done again: the program ends at once.
    """

    def __init__(self):
        """Nobody has asked yet."""
        self._asked = self._deferred = False
        self._calls = 0

    def listen(self) -> None:
        """Takes SIGTERM as the request, in the main thread of a single process.

        Of several processes, JAX's preemption service hears it, and a cloud's notice alike, and agrees on a step.
        """
        if not jax.distributed.is_initialized():
            signal.signal(signal.SIGTERM, self._hear)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a request waits until `heard` is asked for.

        Raises:
            StoppedError: at the end, if a request has been left waiting.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self._asked:
            raise StoppedError("stopped; the same command goes on from here")

    def heard(self) -> bool:
        """Whether to stop now; to be asked after every step, as often by all processes, who get the same answer."""
        self._calls += 1
        if jax.distributed.is_initialized():
            # Counted over all stages: the service wants numbers that grow, and steps begin anew with each.
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._asked

    def _hear(self, *_: object) -> None:
        self._asked = True
        if not self._deferred:
            raise StoppedError("stopped; the same command goes on from the last stage that is complete")


# Of runs that nobody can ask.
NEVER = StopRequest()
