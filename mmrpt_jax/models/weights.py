"""Our own checkpoints: parameters under their own names in one safetensors file, readable by other tools."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.safetensors_file import write_file
from mmrpt_jax.models.weight_table import flatten, own_names


def save_weights(path: str | os.PathLike[str], params: Any, *, dtype: Any = jnp.float32) -> None:
    """Writes a tree of parameters, names are the tree's keys joined by dots; the file is whole or not there."""
    leaves = flatten(params)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_file(Path(path), {w.theirs: np.asarray(leaves[w.ours]).astype(dtype) for w in own_names(params)})


def load_weights(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads parameters into the structure, types and shardings of `like`; raises as `read_weights`."""
    return read_weights(path, own_names(like), like)
