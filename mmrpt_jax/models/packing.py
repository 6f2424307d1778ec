"""Branches of different lengths in one row: what an update would compute of padding, it does not.

All branches of a group stand one behind the other, and share the row as they share their prompt: without seeing each
other.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.places import EMPTY, BranchTokens, PackedBranches, Packing


def pack_lengths(lengths: Int[np.ndarray, "B G"], buckets: Sequence[int]) -> Packing | None:
    """Lays each group's branches out in one row.

    Args:
        lengths: tokens of each branch; one of 0 takes no room.
        buckets: what the length S of the rows may be; every other S compiles anew what takes the rows.

    Returns:
        Rows of the shortest bucket that suffices for every group, or None where none does.
    """
    needed = int(lengths.sum(axis=1).max())
    fitting = [length for length in buckets if length >= needed]
    if not fitting:
        return None
    branch, step = np.full((2, len(lengths), min(fitting)), EMPTY, np.int32)
    for row, own in enumerate(lengths):
        taken = slice(int(own.sum()))
        branch[row, taken] = np.repeat(np.arange(len(own)), own)
        step[row, taken] = np.concatenate([np.arange(length) for length in own])
    return Packing(branch, step)


def pack(branches: BranchTokens, packing: Packing) -> PackedBranches:
    """Branches as rows."""
    rows = jnp.arange(len(branches.ids))[:, None]
    return PackedBranches(branches.ids[rows, packing.branch, packing.step][:, None], packing)


def unpack(values: Float[Array, "B 1 S"], packing: Packing, branches: BranchTokens) -> Float[Array, "B G R"]:
    """What was found of each token, where it stands in its branch; 0 for those that were left out."""
    rows = jnp.arange(len(values))[:, None]
    # What is out of bounds is dropped; what is negative would count from the end.
    branch = jnp.where(packing.branch == EMPTY, branches.ids.shape[1], packing.branch)
    nothing = jnp.zeros(branches.ids.shape, values.dtype)
    return nothing.at[rows, branch, packing.step].set(values[:, 0], mode="drop")
