"""Times of several works that take turns, so that whatever else the machine does slows all of them."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from experiments.benchmarks.common.sizes import of_model


def take_turns(works: Mapping[str, Callable[[], Any]], *, repeats: int) -> list[dict[str, float]]:
    """Calls every work `repeats` times in turn, after a first call that compiles; seconds by name, turn by turn."""
    for work in works.values():
        jax.block_until_ready(work())
    return [{name: _seconds(work) for name, work in works.items()} for _ in range(repeats)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def title(work: str) -> Callable[[argparse.Namespace], str]:
    """What was asked for -> what was measured, with which model if one was chosen, and on what."""

    def describe(options: argparse.Namespace) -> str:
        return f"{work}{of_model(options)} on {jax.device_count()} × {jax.devices()[0].device_kind}"

    return describe


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start
