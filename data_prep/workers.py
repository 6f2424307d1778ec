"""Runs calls on several processes of this machine."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, context, get_context, parent_process
from typing import Any, TypeVar

T = TypeVar("T")

_SECONDS_BETWEEN_REPORTS = 5.0


def run_all(
    function: Callable[..., T], calls: Sequence[tuple[Any, ...]], *, workers: int, what: str
) -> list[T]:
    """Returns the result of `function(*call)` for every call, in order; says on stderr how far it is.

    Raises:
        OSError: a worker died.
    """
    if min(workers, len(calls)) <= 1:
        return [function(*call) for call in _reporting(calls, len(calls), what)]
    with ProcessPoolExecutor(
        workers, mp_context=_processes(), initializer=_begin, initargs=(os.getcwd(),)
    ) as pool:
        futures = [pool.submit(function, *call) for call in calls]
        try:
            for future in _reporting(as_completed(futures), len(futures), what):
                future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died, perhaps for want of memory; the same command goes on where it was"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _processes() -> context.BaseContext:
    """Workers fork from a process that has imported what they need, and has no threads that a fork would lose."""
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["data_prep.job"])
    return processes


def _begin(folder: str) -> None:
    """Workers see relative paths as their parent does, and die with it: they would wait for work for ever."""
    os.chdir(folder)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reporting(items: Any, count: int, what: str) -> Any:
    reported = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(f"{what}: {number} of {count}", file=sys.stderr, flush=True)
        yield item
