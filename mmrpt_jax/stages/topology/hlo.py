"""XLA's optimised program as it writes it down: its instructions, and how often each of them runs.

XLA's own summary has the body of a loop once; here it counts as often as the loop runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(?:ENTRY )?%([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
# What an instruction runs.
CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%([\w.\-]+)")
_BODY = re.compile(r"condition=%([\w.\-]+), body=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONSTANT = re.compile(r"constant\((\d+)\)")


class Instruction(NamedTuple):
    """One line of a computation; `shape` is text, with layouts."""

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    line: str
    is_root: bool


Module = Mapping[str, Sequence[Instruction]]


def read_module(text: str) -> tuple[Module, str]:
    """(computations by name, name of the first) of an optimised program."""
    module: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = found[1]
            module[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif found := _INSTRUCTION.match(line):
            root, name, shape, kind, rest = found.groups()
            operands = tuple(_NAME.findall(rest[: _closing(rest)]))
            module[current].append(Instruction(name, shape, kind, operands, line, bool(root)))
    return module, entry


def _closing(text: str) -> int:
    """Where the bracket that was opened before `text` closes."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    return len(text)


def steps(module: Module, entry: str, *, trips: int = 1) -> Iterator[tuple[str, int]]:
    """Every computation that runs on its own, and how often: the first, bodies of loops inside of each other, branches.

    Args:
        module: of `read_module`.
        entry: likewise.
        trips: of a loop whose condition does not tell.
    """
    yield entry, 1
    for instruction in module[entry]:
        if found := _BODY.search(instruction.line):
            condition, body = found.groups()
            bounds = [int(n) for i in module[condition] for n in _CONSTANT.findall(i.line)]
            count = max(bounds, default=trips)
            yield from ((name, count * times) for name, times in steps(module, body, trips=trips))
        elif instruction.kind in ("call", "conditional"):
            branches = " ".join(_BRANCHES.findall(instruction.line))
            for name in CALLED.findall(instruction.line) + _NAME.findall(branches):
                yield from steps(module, name, trips=trips)


def shape_bytes(shape: str, *, anywhere: bool = False) -> int:
    """Bytes of the arrays of a shape: those that lie in the main memory, or all."""
    total = 0
    for kind, sizes, layout in _SHAPE.findall(shape):
        if anywhere or "S(" not in layout:
            total += _width(kind) * math.prod(_sizes(sizes))
    return total


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _width(kind: str) -> int:
    if kind == "pred":
        return 1
    bits = re.search(r"\d+", kind)
    return max(int(bits[0]) // 8, 1) if bits else 0


def dimensions(shape: str) -> list[tuple[int, ...]]:
    """Sizes of the arrays of a shape."""
    return [_sizes(found[2]) for found in _SHAPE.finditer(shape)]


def elements(shape: str) -> list[str]:
    """The arrays of a shape, each with its layout."""
    return [found[0] for found in _SHAPE.finditer(shape)]
