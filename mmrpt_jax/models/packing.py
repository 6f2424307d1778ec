"""Branches of different lengths in fewer rows: what an update would compute of padding, it does not.

Packed branches stand one behind the other in a row, which they share as they share their prompt: without seeing each
other. A slot is a token's number in its group, g·R + r.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.places import BranchTokens

# Of a token of a row that holds none.
EMPTY = -1


def pack_rows(
    lengths: Int[np.ndarray, "B G"], length: int, rows: Sequence[int]
) -> Int[np.ndarray, "B W R"] | None:
    """Packs each group into W rows, longest branches first, each into the first row that has room for it.

    Args:
        lengths: tokens of each branch; one of 0 takes no room.
        length: R, tokens of a row; no branch is longer.
        rows: what W may be; every other W compiles what takes the rows anew.

    Returns:
        The slot of each token, or None where none of `rows` suffices for all groups.
    """
    packed = [_first_fit(group, length) for group in lengths]
    needed = max(len(group) for group in packed)
    fitting = [count for count in rows if count >= needed]
    if not fitting:
        return None
    slots = np.full((len(lengths), min(fitting), length), EMPTY, np.int32)
    for group, members, own in zip(slots, packed, lengths, strict=True):
        for row, branches in zip(group, members, strict=False):
            taken = np.concatenate([np.arange(own[branch]) + branch * length for branch in branches])
            row[: len(taken)] = taken
    return slots


def _first_fit(lengths: Int[np.ndarray, " G"], length: int) -> list[list[int]]:
    """The branches of each row."""
    rows: list[list[int]] = []
    room: list[int] = []
    for branch in np.argsort(-lengths, kind="stable"):
        if not lengths[branch]:
            break
        place = next((place for place, free in enumerate(room) if free >= lengths[branch]), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(length)
        rows[place].append(int(branch))
        room[place] -= lengths[branch]
    return rows


def pack(branches: BranchTokens, slots: Int[Array, "B W R"]) -> BranchTokens:
    """Branches [B G R] as rows [B W R]."""
    flat = branches.ids.reshape(len(slots), 1, -1)
    ids = jnp.take_along_axis(flat, jnp.maximum(slots, 0).reshape(len(slots), 1, -1), axis=2)
    return BranchTokens(ids.reshape(slots.shape), slots != EMPTY, slots)


def unpack(
    values: Float[Array, "B W R"], slots: Int[Array, "B W R"], group_size: int
) -> Float[Array, "B G R"]:
    """What was found of each token, where it stands in its branch; 0 for those that were left out."""
    batch, _, length = slots.shape
    nothing = jnp.zeros((batch, group_size * length), values.dtype)
    # What is out of bounds is dropped; what is negative would count from the end.
    places = jnp.where(slots == EMPTY, nothing.shape[1], slots).reshape(batch, -1)
    rows = jnp.arange(batch)[:, None]
    return (
        nothing.at[rows, places]
        .set(values.reshape(batch, -1), mode="drop")
        .reshape(batch, group_size, length)
    )
