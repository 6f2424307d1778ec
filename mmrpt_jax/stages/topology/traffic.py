"""What moves between the memory and the core of one device in an optimised program."""

import re
from collections.abc import Mapping, Sequence

from mmrpt_jax.stages.topology.exchanges import exchanged
from mmrpt_jax.stages.topology.hlo import (
    CALLED,
    Instruction,
    Module,
    dimensions,
    elements,
    shape_bytes,
    steps,
)

# Names for what is there, and what only runs something else.
_FREE = re.compile(
    "parameter|constant|iota|get-tuple-element|tuple|bitcast|while|conditional|call|after-all|partition-id"
)
_ALLOCATES = 'custom_call_target="AllocateBuffer"'


def traffic(module: Module, entry: str, *, trips: int = 1) -> int:
    """Bytes between the memory and the core of one device: what instructions read and write of it."""
    return sum(
        times * sum(_moved(module, {i.name: i for i in module[name]}, i) for i in module[name])
        for name, times in steps(module, entry, trips=trips)
    )


def _moved(module: Module, known: Mapping[str, Instruction], instruction: Instruction) -> int:
    kind = instruction.kind
    if _FREE.fullmatch(kind) or kind.endswith(("-done", "-update")) or _ALLOCATES in instruction.line:
        return 0
    written = shape_bytes(instruction.shape)
    if kind.endswith("-start"):
        return written
    operands = [shape_bytes(known[name].shape) if name in known else 0 for name in instruction.operands]
    if kind == "dynamic-slice":
        return 2 * written
    if kind == "dynamic-update-slice":
        return 2 * operands[1]
    if kind == "fusion":
        inner = module[CALLED.search(instruction.line)[1]]
        # What a piece of a collective is still filling is handed on, not moved.
        filled = {shape for e, _ in exchanged(module, instruction) for shape in e.shapes}
        given = [known[name].shape if name in known else "" for name in instruction.operands]
        read = (
            _read(module, inner, place, operands[place])
            for place, shape in enumerate(given)
            if operands[place] and not filled & set(dimensions(shape))
        )
        return _written(module, inner, instruction.shape, filled) + sum(read)
    return written + sum(operands)


def _read(module: Module, inner: Sequence[Instruction], place: int, size: int) -> int:
    """What a fusion reads of an operand of `size` bytes: slices of it, where it takes no more."""
    (start,) = (i.name for i in inner if i.kind == "parameter" and f"parameter({place})" in i.line)
    names, taken = {start}, 0
    for instruction in inner:
        uses = [number for number, name in enumerate(instruction.operands) if name in names]
        if not uses:
            continue
        if instruction.kind == "bitcast":
            names.add(instruction.name)
        elif instruction.kind == "dynamic-slice":
            taken += shape_bytes(instruction.shape, anywhere=True)
        elif instruction.kind == "fusion":
            nested = module[CALLED.search(instruction.line)[1]]
            taken += sum(_read(module, nested, number, size) for number in uses)
        elif instruction.kind != "dynamic-update-slice" or uses != [0]:
            return size
    return min(taken, size)


def _written(module: Module, inner: Sequence[Instruction], shape: str, filled: set[tuple[int, ...]]) -> int:
    """What a fusion writes: of an array that it changes in place, what is new; nothing of what is `filled`."""
    known = {i.name: i for i in inner}
    (root,) = (i for i in inner if i.is_root)
    if root.kind == "fusion":
        return _written(module, module[CALLED.search(root.line)[1]], shape, filled)
    made = [known[name] for name in root.operands] if root.kind == "tuple" else [root]
    parts = elements(shape)
    if len(made) != len(parts):
        return shape_bytes(shape)
    return sum(
        min(shape_bytes(part), _new(known, result))
        for result, part in zip(made, parts, strict=True)
        if not filled & set(dimensions(part))
    )


def _new(known: Mapping[str, Instruction], result: Instruction) -> int:
    """Bytes of a result that were not there before."""
    while result.kind == "bitcast":
        result = known[result.operands[0]]
    if result.kind == "dynamic-update-slice":
        return shape_bytes(known[result.operands[1]].shape, anywhere=True)
    return shape_bytes(result.shape, anywhere=True)
