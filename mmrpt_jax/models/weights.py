"""Parameters as one safetensors file: small, safe to load, readable by other tools."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file


def save_weights(path: str, params, *, dtype=jnp.float32) -> None:
    """Writes a tree of parameters, names are the tree's keys joined by dots; the file is whole or not there."""
    leaves = jax.tree.leaves_with_path(params)
    flat = {_name(key): np.asarray(jnp.asarray(leaf, dtype)) for key, leaf in leaves}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = f"{os.fspath(path)}.partial"
    save_file(flat, partial)
    os.replace(partial, path)


def load_weights(path: str, like):
    """Reads parameters into the structure, types and shardings of `like` (arrays or abstract arrays).

    Raises:
        FileNotFoundError: no such file.
        ValueError: names the tensors that are missing, unexpected, or of another shape.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no weights at {path}")
    stored = load_file(os.fspath(path))
    wanted = {_name(key): leaf for key, leaf in jax.tree.leaves_with_path(like)}
    problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"unexpected {name}" for name in sorted(stored.keys() - wanted.keys())]
    problems += [
        f"{name} is {stored[name].shape}, the model wants {leaf.shape}"
        for name, leaf in sorted(wanted.items())
        if name in stored and stored[name].shape != leaf.shape
    ]
    if problems:
        raise ValueError(f"{path} does not fit this model: " + "; ".join(problems))

    def place(key, leaf):
        return jax.device_put(stored[_name(key)].astype(leaf.dtype), getattr(leaf, "sharding", None))

    return jax.tree.map_with_path(place, like)


def _name(key) -> str:
    return ".".join(part.key for part in key)
