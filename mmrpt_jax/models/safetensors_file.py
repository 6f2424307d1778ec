"""A safetensors file, read with distrust: what its header promises lies in the file, or the file is refused.

Eight bytes tell the length of a JSON object, which tells type, shape and place of every tensor; their numbers follow
without gaps (https://huggingface.co/docs/safetensors).
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mmrpt_jax.models.full_disk import naming_a_full_disk

_DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}
# The bound of the safetensors library.
_LONGEST_HEADER = 100_000_000


class StoredTensor(NamedTuple):
    """Where a tensor's numbers lie: `shape` of `dtype`, row by row from byte `offset` of the file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def view(self) -> np.ndarray:
        """The tensor as an array that reads from the file what is looked at; it lets go of the file when dropped."""
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)
        return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Tensors of a file by name; reads none of their numbers.

    Raises:
        ValueError: the file is not what its header says, or holds a type of number that is not known.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = 8 + length
        if start > size or length > _LONGEST_HEADER:
            raise _refusal(path, f"{size} bytes cannot hold a header of {length}")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise _refusal(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _refusal(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors = {name: _tensor(path, start, name, entry) for name, entry in header.items()}
    _check_places(path, start, size, tensors)
    return tensors


def _tensor(path: Path, start: int, name: str, entry: Any) -> StoredTensor:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            if kind not in _DTYPES:
                raise _refusal(path, f"{name!r} is of an unknown type, {kind!r}")
            if not all(type(axis) is int and axis >= 0 for axis in shape):
                raise _refusal(path, f"{name!r} has an impossible shape")
            dtype = np.dtype(_DTYPES[kind])
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise _refusal(path, f"{name!r} of type {kind} does not take {end - begin} bytes")
            return StoredTensor(path, start + begin, tuple(shape), dtype)
    raise _refusal(path, f"the entry of {name!r} is malformed")


def _check_places(path: Path, start: int, size: int, tensors: dict[str, StoredTensor]) -> None:
    """Refuses numbers that overlap, leave a gap, or go on outside the file."""
    end = start
    spans = {
        name: (t.offset, t.offset + math.prod(t.shape) * t.dtype.itemsize) for name, t in tensors.items()
    }
    for name, (begin, behind) in sorted(spans.items(), key=lambda item: item[1]):
        if begin != end:
            raise _refusal(path, f"{name!r} lies at byte {begin}, not behind the tensor before it at {end}")
        end = behind
    if end != size:
        raise _refusal(path, f"its tensors end at byte {end} of {size}")


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is no sound safetensors file: {reason}; is it there whole?")


def write_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays; the file is whole or not there. Raises as `naming_a_full_disk`."""
    partial = path.with_name(f"{path.name}.partial")
    # The library takes bytes as they lie in memory; `transformers` asks for the mark.
    rows = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with naming_a_full_disk(path):
        save_file(rows, partial, metadata={"format": "pt"})
    os.replace(partial, path)
