"""Our parameters as a checkpoint that other libraries read: safetensors in shards, with the index of the hub."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from huggingface_hub import split_state_dict_into_shards_factory

from mmrpt_jax.models.checkpoint_files import INDEX, WEIGHTS
from mmrpt_jax.models.safetensors_file import write_file
from mmrpt_jax.models.weight_table import Weight, flatten, match_table


def write_weights(
    directory: str | os.PathLike[str],
    table: Iterable[Weight],
    params: Any,
    *,
    others: Mapping[str, np.ndarray] = MappingProxyType({}),
    max_shard_bytes: int = 5 * 10**9,
    dtype: Any = None,
) -> None:
    """Writes parameters under the names of `table`, the inverse of `read_weights`; the host holds one shard at a time.

    What fits is one file, `model.safetensors`; more goes into shards, of which the index, which makes them a
    checkpoint, is written last.

    Args:
        directory: made if it is not there.
        table: where the checkpoint keeps which of our weights.
        params: arrays, sharded or not.
        others: tensors that readers expect beside the weights, by their names.
        max_shard_bytes: a file is not larger, unless a single tensor is.
        dtype: type of the written numbers; by default that of each parameter.

    Raises:
        FileExistsError: the directory holds weights already.
        ValueError: the table does not give each weight one entry and each of their tensors one value.
    """
    directory = Path(directory)
    pieces = _their_tensors(table, params)
    pieces |= {name: [_Piece(Weight(name, name), array, 0)] for name, array in others.items()}
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.glob("model*.safetensors*")):
        raise FileExistsError(f"{directory} holds weights already: choose another directory, or remove them")
    split = split_state_dict_into_shards_factory(
        {name: sum(piece.nbytes(dtype) for piece in held) for name, held in pieces.items()},
        get_storage_size=lambda size: size,
        filename_pattern=WEIGHTS.replace(".", "{suffix}."),
        max_shard_size=max_shard_bytes,
    )
    for file, names in split.filename_to_tensors.items():
        write_file(directory / file, {name: _assemble(pieces[name], dtype) for name in names})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        partial = directory / f"{INDEX}.partial"
        partial.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        os.replace(partial, directory / INDEX)


class _Piece(NamedTuple):
    """A parameter, or one layer of it, as (a part of) a tensor of theirs."""

    weight: Weight
    leaf: Any
    layer: int

    def nbytes(self, dtype: Any) -> int:
        count = self.leaf.size // (self.leaf.shape[0] if self.weight.stacked else 1)
        return count * np.dtype(dtype or self.leaf.dtype).itemsize

    def values(self, dtype: Any) -> np.ndarray:
        # Only the layer that is written leaves its device.
        ours = np.asarray(self.leaf[self.layer] if self.weight.stacked else self.leaf)
        return self.weight.layout.to_theirs(ours).astype(dtype or ours.dtype, copy=False)


def _their_tensors(table: Iterable[Weight], params: Any) -> dict[str, list[_Piece]]:
    """What each tensor of theirs is made of, in order."""
    leaves, pieces = flatten(params), defaultdict(list)
    for path, weight in match_table(table, leaves).items():
        for layer, name in enumerate(weight.their_names(leaves[path].shape)):
            pieces[name].append(_Piece(weight, leaves[path], layer))
    twice = [name for name, held in pieces.items() if len(held) != held[0].weight.part[1]]
    if twice:
        raise ValueError(f"the table of names writes more than one weight to {', '.join(twice)}")
    return {name: sorted(held, key=lambda piece: piece.weight.part) for name, held in pieces.items()}


def _assemble(pieces: list[_Piece], dtype: Any) -> np.ndarray:
    values = [piece.values(dtype) for piece in pieces]
    return values[0] if len(values) == 1 else np.concatenate(values)
