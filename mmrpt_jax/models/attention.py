"""Attention over a list of key blocks: the prompt's keys, shared by a group, and each branch's own.

A key is visible when it is valid and not later in `order` than the query. That one rule covers causal text
(order = position), bidirectional images (all patches share one order), padding (not valid) and a half-filled
cache (later slots are later in order).

Where both have places, a key must also be less than `reach` places away. That covers sliding windows (place = index
in the sequence), windows of patches (place = number of the window, reach 1) and several images in one row (their places
lie `FAR` apart and more).
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.chunk_attention import Attended, KeyBlock, Rows, attended_values, look

# Reach of a layer that sees everything; tokens whose places are as far apart never see each other.
FAR = 1 << 20
# Parts of causal queries that each meet only the keys up to their end: the more, the less is computed in vain (5/8 of
# all squares are, with four), and the longer compiling takes.
_STAIRS = 4


def attend(
    queries: Float[Array, "B G T N H"],
    order: Int[Array, "B G T"],
    blocks: Sequence[KeyBlock],
    *,
    places: Int[Array, "B G T"] | None = None,
    reach: Int[Array, ""] | int = FAR,
    scale: float | None = None,
    softcap: float = 0.0,
    query_weights: Float[Array, "B G T"] | None = None,
    query_chunk: int = 256,
    causal: bool = False,
) -> Attended:
    """Softmax attention of every query over the union of the blocks' visible keys.

    Scores and softmax are float32. Queries run chunk by chunk, and the backward pass computes the scores of a chunk
    anew from what the softmax was divided by (arXiv 2205.14135), so that no [T, S] map is ever held. The mass per
    region and the mass per key are summed in the same pass: they cost one narrow product more, not a second softmax,
    because attention is linear in its values.

    Args:
        queries: unscaled; the scale is applied here.
        order: the queries' order.
        blocks: at least one; at most one of them names regions.
        places: the queries' places, if not everything of lower order is seen; a shared block without any is near to
            all.
        reach: keys must be less than so many places away.
        scale: factor on scores; None: 1/sqrt(H).
        softcap: c in c·tanh(score/c), which keeps scores between −c and c; 0: none.
        query_weights: weight of each query in `received`, 0 for padding; needed when a block names regions.
        query_chunk: queries of a branch in a chunk, at most.
        causal: the last block holds the keys of the queries themselves, token by token, and none sees a later one:
            what is hidden in any case is not computed, as far as whole chunks go.

    Raises:
        ValueError: a block names regions, but there are no `query_weights`, or it holds the keys of causal queries; or
            queries have places, and the last block, their own, has none.
    """
    blocks = list(blocks)
    if places is not None and blocks[-1].places is None:
        raise ValueError(
            "queries have places, and the last block of keys has none: give it places, or them none"
        )
    if causal and blocks[-1].regions is not None:
        raise ValueError(
            "the last block holds the queries' own keys, and names regions: only shared keys may"
        )
    measured = any(block.regions is not None for block in blocks)
    if query_weights is None and measured:
        raise ValueError("a block names regions: pass query_weights, 0 for queries that do not count")
    scaled = queries * (queries.shape[-1] ** -0.5 if scale is None else scale)
    rows, length = Rows(scaled, order, places, query_weights), queries.shape[2]

    def attend_to(rows: Rows, blocks: Sequence[KeyBlock]) -> Attended:
        if measured:
            return jax.checkpoint(lambda rows: look(rows, blocks, reach, softcap)[0])(rows)
        return Attended(attended_values(rows, blocks, reach, softcap), None, None)

    if not causal:
        return _in_chunks(functools.partial(attend_to, blocks=blocks), rows, query_chunk)
    *before, own = blocks
    seen = []
    for start, end in _stairs(length, query_chunk):
        here = functools.partial(attend_to, blocks=[*before, _up_to(own, end)])
        seen.append(_in_chunks(here, jax.tree.map(functools.partial(_part, start, end), rows), query_chunk))
    return _joined(seen)


def _stairs(length: int, chunk: int) -> list[tuple[int, int]]:
    """(start, end) of runs of whole chunks: queries from start to end meet the keys up to end."""
    chunks = -(-length // chunk)
    size, count = -(-length // chunks), min(chunks, _STAIRS)
    ends = [min(size * (chunks * stair // count), length) for stair in range(count + 1)]
    return list(itertools.pairwise(ends))


def _part(start: int, end: int, rows: Array) -> Array:
    return rows[:, :, start:end]


def _up_to(block: KeyBlock, end: int) -> KeyBlock:
    """The first keys of a block."""
    order, valid, places = (
        None if x is None else x[..., :end] for x in (block.order, block.valid, block.places)
    )
    return KeyBlock(block.keys[..., :end, :], block.values[..., :end, :], order, valid, None, places)


def _joined(seen: Sequence[Attended]) -> Attended:
    """What consecutive queries saw."""
    values, mass = jax.tree.map(
        lambda *parts: jnp.concatenate(parts, axis=2), *((one.values, one.mass) for one in seen)
    )
    return Attended(values, mass, jax.tree.map(lambda *parts: sum(parts), *(one.received for one in seen)))


def _in_chunks(attend_to: Callable[[Rows], Attended], rows: Rows, query_chunk: int) -> Attended:
    """What all rows see, a chunk of queries at a time."""
    length = rows.order.shape[2]
    steps = -(-length // query_chunk)
    if steps == 1:
        return attend_to(rows)

    def split(array):
        padding = [(0, 0)] * array.ndim
        padding[2] = (0, -length % steps)
        padded = jnp.pad(array, padding)
        return jnp.moveaxis(padded.reshape(*array.shape[:2], steps, -1, *array.shape[3:]), 2, 0)

    def join(chunks):
        joined = jnp.moveaxis(chunks, 0, 2)
        return joined.reshape(*joined.shape[:2], -1, *joined.shape[4:])[:, :, :length]

    # A loop, and not an unrolled one: XLA is free to run independent chunks at once, and to hold them all.
    seen = jax.lax.map(attend_to, jax.tree.map(split, rows))
    values, mass = jax.tree.map(join, (seen.values, seen.mass))
    return Attended(values, mass, jax.tree.map(lambda x: x.sum(axis=0), seen.received))
