"""A checkpoint's weights into our parameters: checked by name first, then read straight into their shards."""

import fnmatch
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmrpt_jax.models.checkpoint_files import open_checkpoint
from mmrpt_jax.models.finite import check_finite
from mmrpt_jax.models.paths import path_of
from mmrpt_jax.models.safetensors_file import StoredTensor
from mmrpt_jax.models.weight_table import Weight, flatten, match_table, respelled

_Index = tuple[slice, ...]


def read_weights(
    path: str | os.PathLike[str],
    table: Iterable[Weight],
    abstract: Any,
    *,
    dtype: Any = None,
    ignored: Collection[str] = (),
    spellings: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Reads a checkpoint into the structure and shardings of `abstract`, each device's share on its own.

    Beside the parameters themselves, the host holds one stacked tensor at most, or what this host's devices have of it.

    Args:
        path: a directory of safetensors, sharded or not, or one file.
        table: where the checkpoint keeps which of our weights.
        abstract: (abstract) arrays; those without a sharding land on the default device.
        dtype: type of the parameters; by default those of `abstract`.
        ignored: patterns of names (`*.rotary_emb.inv_freq`) that may be in the checkpoint and are not used.
        spellings: other beginnings that names may have in the checkpoint, and what the table says for each.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: names all tensors that are missing, unexpected, of another shape or quantized, before anything is
            read; or says why the files or the table are refused; or which numbers are not finite.
    """
    leaves = flatten(abstract)
    stored, weights = check_fit(path, table, leaves, ignored=ignored, spellings=spellings)

    def load(name: str) -> jax.Array:
        leaf, weight = leaves[name], weights[name]
        tensors = [stored[theirs] for theirs in weight.their_names(leaf.shape)]
        kind = np.dtype(dtype or leaf.dtype)
        return _place(leaf, lambda index: _read(weight, tensors, index, kind))

    # The largest first, while little else is held: on the way to its device a tensor is there twice.
    order = sorted(leaves, key=lambda name: -leaves[name].size)
    loaded = {name: load(name) for name in order}
    check_finite(loaded, path, "nothing can be computed with them")
    return jax.tree.map_with_path(lambda key, _: loaded[path_of(key)], abstract)


def check_fit(
    path: str | os.PathLike[str],
    table: Iterable[Weight],
    leaves: Mapping[str, Any],
    *,
    ignored: Collection[str] = (),
    spellings: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, StoredTensor], dict[str, Weight]]:
    """Compares a checkpoint's names and shapes with those of a model, without reading a number.

    Args:
        path: as in `read_weights`, like the rest.
        table: where the checkpoint keeps which of our weights.
        leaves: (abstract) parameters by path.
        ignored: patterns of names that are not used.
        spellings: other beginnings of names.

    Returns:
        The checkpoint's tensors as the table names them, and the table's entry for each leaf.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: as `read_weights`.
    """
    stored = {respelled(name, spellings): tensor for name, tensor in open_checkpoint(Path(path)).items()}
    weights = match_table(table, leaves)
    problems = _misfits(stored, weights, leaves, ignored)
    if problems:
        raise ValueError(f"{path} does not fit this model:" + "".join(f"\n  {line}" for line in problems))
    return stored, weights


def _misfits(
    stored: Mapping[str, StoredTensor],
    weights: Mapping[str, Weight],
    leaves: Mapping[str, Any],
    ignored: Collection[str],
) -> list[str]:
    """What is wrong with a checkpoint, by their names."""
    wanted = {
        (name, weight.their_shape(leaves[path].shape))
        for path, weight in weights.items()
        for name in weight.their_names(leaves[path].shape)
    }
    problems = [f"missing {name} {shape}" for name, shape in sorted(wanted) if name not in stored]
    unused = stored.keys() - {name for name, _ in wanted}
    problems += [
        f"unexpected {name} {stored[name].shape}"
        for name in sorted(unused)
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)
    ]
    for name, shape in sorted(wanted):
        found = stored.get(name)
        if found and found.shape != shape:
            problems.append(f"{name} is {found.shape}, the model wants {shape}")
        if found and not (jnp.issubdtype(found.dtype, jnp.floating) and found.dtype.itemsize > 1):
            problems.append(f"{name} is quantized ({found.dtype}), the model wants plain numbers")
    return problems


def _place(leaf: Any, read: Callable[[_Index], np.ndarray]) -> jax.Array:
    """An array in the sharding of `leaf`; devices that hold the same shard share one read."""
    shards: dict[str, np.ndarray] = {}

    def shard(index: _Index) -> np.ndarray:
        if str(index) not in shards:
            shards[str(index)] = read(index)
        return shards[str(index)]

    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        array = jax.device_put(read((slice(None),) * len(leaf.shape)))
    else:
        array = jax.make_array_from_callback(leaf.shape, sharding, shard)
    # Transfers are waited for: otherwise host copies of many tensors pile up behind them.
    return jax.block_until_ready(array)


def _read(weight: Weight, tensors: Sequence[StoredTensor], index: _Index, dtype: np.dtype) -> np.ndarray:
    """The slice `index` of our weight, copied out of the files; where it is stacked, layer by layer."""
    if not weight.stacked:
        return weight.to_ours(tensors[0].view())[index].astype(dtype, order="C")
    layers, *inside = index

    def view(tensor: StoredTensor) -> np.ndarray:
        return weight.to_ours(tensor.view())[tuple(inside)]

    chosen = tensors[layers]
    shard = np.empty((len(chosen), *view(chosen[0]).shape), dtype)
    for row, tensor in enumerate(chosen):
        shard[row] = view(tensor)
    return shard
