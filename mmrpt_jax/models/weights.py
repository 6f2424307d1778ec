"""Our own checkpoints: parameters under their own names in one safetensors file, readable by other tools."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.safetensors_file import write_file
from mmrpt_jax.models.weight_table import flatten, own_names


def save_weights(path: str | os.PathLike[str], params: Any, *, dtype: Any = None) -> None:
    """Writes a tree of parameters; the file is whole or not there.

    Args:
        path: of the file.
        params: names are the tree's keys joined by dots.
        dtype: type of the written numbers; by default that of each parameter.
    """
    leaves = flatten(params)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    arrays = {w.theirs: np.asarray(leaves[w.ours]) for w in own_names(params)}
    write_file(Path(path), {name: array.astype(dtype or array.dtype) for name, array in arrays.items()})


def load_weights(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads parameters into the structure, types and shardings of `like`; raises as `read_weights`."""
    return read_weights(path, own_names(like), like)
