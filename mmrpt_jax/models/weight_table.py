"""How our parameter tree and a published checkpoint name the same weights: one table, used for both directions."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mmrpt_jax.models.paths import path_of


class Layout(NamedTuple):
    """How the numbers of one weight lie on either side; each function undoes the other.

    Attributes:
        to_ours: their array -> ours. Where it returns a view (transposed, reshaped, sliced), a shard reads from a
            checkpoint's file only what it needs.
        to_theirs: our array -> theirs.
    """

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def permuted(*axes: int) -> Layout:
    """Our axis i is their axis `axes[i]`; `permuted(2, 3, 1, 0)` makes [out in h w] a convolution's [h w in out]."""
    back = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(lambda x: x.transpose(axes), lambda x: x.transpose(back))


def patches(sizes: tuple[int, ...], order: tuple[int, ...]) -> Layout:
    """A convolution over patches that do not overlap, [out, *sizes], as the matrix [pixels, out] of flat patches.

    Args:
        sizes: their axes behind `out`: (channels, rows, columns), or (channels, frames, rows, columns) for video.
        order: the axes of `sizes` as a flat patch counts them, slowest first. `patchify` counts (row, column,
            channel), which is (1, 2, 0); the processor of Qwen2-VL counts (channel, frame, row, column), which is
            (0, 1, 2, 3).
    """
    axes = tuple(axis + 1 for axis in order)
    permutation = permuted(*axes, 0)
    ordered = tuple(sizes[axis] for axis in order)
    return Layout(
        lambda x: permutation.to_ours(x).reshape(math.prod(sizes), -1),
        lambda x: permutation.to_theirs(x.reshape(*ordered, -1)),
    )


AS_IS = Layout(lambda x: x, lambda x: x)
# Torch keeps matrices as [out in].
TRANSPOSE = permuted(1, 0)


class Weight(NamedTuple):
    """One of our weights and where a checkpoint keeps it.

    Attributes:
        ours: path in our parameters, "decoder/layers/query/kernel".
        theirs: name in the checkpoint, "model.layers.{layer}.self_attn.q_proj.weight"; with {layer}, ours is stacked
            on a leading L axis.
        layout: how the numbers lie; of one layer, where ours is stacked.
        part: (index, count): ours is that one of `count` equal slices of their first axis.
        layers: which of their layers our stacked axis holds; 0 to L - 1 if None.
    """

    ours: str
    theirs: str
    layout: Layout = AS_IS
    part: tuple[int, int] = (0, 1)
    layers: tuple[int, ...] | None = None

    @property
    def stacked(self) -> bool:
        """Whether our leading axis counts layers, each a tensor of theirs."""
        return "{layer}" in self.theirs

    def their_names(self, shape: tuple[int, ...]) -> list[str]:
        """Tensors that hold our weight of this shape, in the order of our leading axis if that counts layers."""
        if not self.stacked:
            return [self.theirs]
        layers = range(shape[0]) if self.layers is None else self.layers
        if len(layers) != shape[0]:
            raise ValueError(f"{self.ours} stacks {shape[0]} layers, its table lists {len(layers)} of theirs")
        return [self.theirs.format(layer=layer) for layer in layers]

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of each of those tensors."""
        # An array of any shape that takes no memory.
        ours = np.broadcast_to(np.int8(0), shape[1:] if self.stacked else shape)
        theirs = self.layout.to_theirs(ours).shape
        count = self.part[1]
        return theirs if count == 1 else (count * theirs[0], *theirs[1:])

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Our share of one of their tensors, in our layout."""
        index, count = self.part
        return self.layout.to_ours(tensor if count == 1 else np.split(tensor, count)[index])


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of a tree of parameters by path, "decoder/layers/query/kernel"."""
    return {path_of(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def respelled(name: str, spellings: Mapping[str, str]) -> str:
    """A name with the first of `spellings` that it begins with put in place of that beginning."""
    for beginning, other in spellings.items():
        if name.startswith(beginning):
            return other + name.removeprefix(beginning)
    return name


def own_names(tree: Any) -> list[Weight]:
    """The table of checkpoints that keep our weights as they are, the keys of a path joined by dots."""
    return [Weight(path, path.replace("/", ".")) for path in flatten(tree)]


def match_table(table: Iterable[Weight], leaves: Mapping[str, Any]) -> dict[str, Weight]:
    """The entry of each of our leaves. Entries without a leaf are left out: not every config has every weight.

    Raises:
        ValueError: a leaf without an entry or with two, or a part of a tensor of theirs that no leaf holds.
    """
    entries: dict[str, list[Weight]] = {path: [] for path in leaves}
    for weight in table:
        if weight.ours in entries:
            entries[weight.ours].append(weight)
    wrong = [f"{path} has {len(found)}" for path, found in entries.items() if len(found) != 1]
    if wrong:
        raise ValueError(f"each weight needs one entry in the table of names, but {', '.join(wrong)}")
    matched = {path: found[0] for path, found in entries.items()}
    parts = defaultdict(set)
    for path, weight in matched.items():
        for name in weight.their_names(leaves[path].shape):
            parts[name].add(weight.part)
    torn = [name for name, held in parts.items() if not _whole(held)]
    if torn:
        raise ValueError(f"the table of names uses only some parts of {', '.join(torn)}")
    return matched


def _whole(parts: set[tuple[int, int]]) -> bool:
    count = len(parts)
    return parts == {(index, count) for index in range(count)}
