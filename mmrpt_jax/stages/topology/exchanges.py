"""What devices send to each other in an optimised program: its collectives."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from mmrpt_jax.stages.topology.hlo import (
    CALLED,
    Instruction,
    Module,
    dimensions,
    elements,
    shape_bytes,
    steps,
)

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")


class Exchange(NamedTuple):
    """A collective.

    Attributes:
        kind: one of `COLLECTIVES`.
        shapes: of its results, as one device has them.
        size: of all of them, bytes.
        times: how often it runs.
        origin: the operation of the traced function that it comes from, as far as XLA still knows.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    size: int
    times: int
    origin: str


def exchanges(module: Module, entry: str, *, trips: int = 1) -> list[Exchange]:
    """Every collective of a program, inside of fusions too.

    One that XLA cuts into pieces, to go on with while products are computed, is one: its pieces share a channel, and
    those in the loop beside it run more often than it does.
    """
    found: dict[str, Exchange] = {}
    for name, times in steps(module, entry, trips=trips):
        for instruction in module[name]:
            for exchange, channel in exchanged(module, instruction):
                before = found.get(channel)
                if before is None or times < before.times:
                    found[channel] = exchange._replace(times=times)
    return list(found.values())


def exchanged(module: Module, instruction: Instruction) -> Iterator[tuple[Exchange, str]]:
    """The collectives of an instruction, each with its channel."""
    kind = instruction.kind.removesuffix("-start")
    if kind in COLLECTIVES:
        arrays = elements(instruction.shape)
        if instruction.kind.endswith("-start") and kind != "all-reduce":
            # What is given stands beside what is made, and a word of state.
            arrays = [max(arrays, key=lambda part: shape_bytes(part, anywhere=True))]
        shapes = tuple(dimensions(" ".join(arrays)))
        size = sum(shape_bytes(part, anywhere=True) for part in arrays)
        origin = _ORIGIN.search(instruction.line)
        channel = _CHANNEL.search(instruction.line)
        yield (
            Exchange(kind, shapes, size, 1, origin[1] if origin else ""),
            channel[1] if channel else instruction.name,
        )
    elif instruction.kind in ("fusion", "async-start"):
        for name in CALLED.findall(instruction.line):
            inner = [e for i in module.get(name, ()) for e in exchanged(module, i)]
            # What is added up and then cut is a reduce-scatter by another name.
            scattered = name.startswith("all-reduce-scatter")
            yield from ((e._replace(kind="reduce-scatter") if scattered else e, c) for e, c in inner)
