"""Attention over a list of key blocks: the prompt's keys, shared by a group, and each branch's own.

A key is visible when it is valid and not later in `order` than the query. That one rule covers causal text
(order = position), bidirectional images (all patches share one order), padding (not valid) and a half-filled
cache (later slots are later in order).

Where tokens have places, a key must also be less than `reach` places away. That covers sliding windows (place = index
in the sequence), windows of patches (place = number of the window, reach 1) and several images in one row (their places
lie `FAR` apart and more).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Reach of a layer that sees everything; tokens whose places are as far apart never see each other.
FAR = 1 << 20
# Finite, so that a query which sees no key at all (padding) gives a uniform average instead of NaN.
_HIDDEN = -1e30


class KeyBlock(NamedTuple):
    """Keys and values that queries may look at; without a G axis they are shared by the whole group.

    Attributes:
        keys: [B S K H] shared, or [B G S K H] own.
        values: like `keys`.
        order: [B S] or [B G S], compared with the queries' order.
        valid: [B S] or [B G S], False for padding.
        regions: [B S M] indicator columns of the regions whose attention mass is wanted, or None; shared
            blocks only.
        places: [B S] or [B G S], compared with the queries' places; needed where those are given.
    """

    keys: Float[Array, "B *G S K H"]
    values: Float[Array, "B *G S K H"]
    order: Int[Array, "B *G S"]
    valid: Bool[Array, "B *G S"]
    regions: Float[Array, "B S M"] | None = None
    places: Int[Array, "B *G S"] | None = None


class Attended(NamedTuple):
    """What queries got from their keys.

    Attributes:
        values: [B G T N H].
        mass: [B G T N M] attention mass per region, each in [0, 1], or None when no block names regions.
        received: [B S N] mass that each key of the block with regions received, summed over weighted queries,
            or None.
    """

    values: Float[Array, "B G T N H"]
    mass: Float[Array, "B G T N M"] | None
    received: Float[Array, "B S N"] | None


class _Rows(NamedTuple):
    """Queries, scaled, and what is known of each; arrays [B G T ...]."""

    queries: Float[Array, "B G T N H"]
    order: Int[Array, "B G T"]
    places: Int[Array, "B G T"] | None
    weights: Float[Array, "B G T"] | None


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
) -> Attended:
    """Softmax attention of every query over the union of the blocks' visible keys.

    Scores and softmax are float32. Longer sequences than `query_chunk` run chunk by chunk, and each chunk is
    recomputed in the backward pass, so that no [T, S] map is ever held. The mass per region and the mass per
    key are summed in the same pass: they cost one narrow product more, not a second softmax, because
    attention is linear in its values.

    Args:
        queries: unscaled; the scale is applied here.
        order: the queries' order.
        blocks: at least one; at most one of them names regions.
        places: the queries' places, if not everything of lower order is seen.
        reach: keys must be less than so many places away.
        scale: factor on scores; None: 1/sqrt(H).
        softcap: c in c·tanh(score/c), which keeps scores between −c and c; 0: none.
        query_weights: weight of each query in `received`, 0 for padding; needed when a block names regions.
        query_chunk: rows of the score matrix held at a time, at most.

    Raises:
        ValueError: a block names regions, but there are no `query_weights`; or queries have places, and a block has
            none.
    """
    if places is not None and any(block.places is None for block in blocks):
        raise ValueError("queries have places, and a block of keys has none: give it places, or them none")
    if query_weights is None and any(block.regions is not None for block in blocks):
        raise ValueError("a block names regions: pass query_weights, 0 for queries that do not count")
    scaled = queries * (queries.shape[-1] ** -0.5 if scale is None else scale)
    rows, length = _Rows(scaled, order, places, query_weights), queries.shape[2]
    look = functools.partial(_attend_rows, blocks=blocks, softcap=softcap, reach=reach)
    if length <= query_chunk:
        return look(rows)
    steps = -(-length // query_chunk)

    def split(array):
        padding = [(0, 0)] * array.ndim
        padding[2] = (0, -length % steps)
        padded = jnp.pad(array, padding)
        return jnp.moveaxis(padded.reshape(*array.shape[:2], steps, -1, *array.shape[3:]), 2, 0)

    def join(chunks):
        joined = jnp.moveaxis(chunks, 0, 2)
        return joined.reshape(*joined.shape[:2], -1, *joined.shape[4:])[:, :, :length]

    # A loop, and not an unrolled one: XLA is free to run independent chunks at once, and to hold them all.
    seen = jax.lax.map(jax.checkpoint(look), jax.tree.map(split, rows))
    values, mass = jax.tree.map(join, (seen.values, seen.mass))
    return Attended(values, mass, jax.tree.map(lambda x: x.sum(axis=0), seen.received))


def _attend_rows(rows: _Rows, *, blocks: Sequence[KeyBlock], softcap: float, reach) -> Attended:
    batch, group, length, heads, dim = rows.queries.shape
    kv_heads = blocks[0].keys.shape[-2]
    grouped = rows._replace(
        queries=rows.queries.reshape(batch, group, length, kv_heads, heads // kv_heads, dim)
    )

    scores = [_scores(grouped, block, softcap, reach) for block in blocks]
    peak = jax.lax.stop_gradient(jnp.max(jnp.stack([s.max(axis=-1) for s in scores]), axis=0))[..., None]
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(w.sum(axis=-1, keepdims=True) for w in weights)
    # Normalising the output costs H per query; normalising the weights would cost S.
    values = sum(_weighted_values(w, block) for w, block in zip(weights, blocks, strict=True))
    values = (
        (values / _tokens_first(total)).reshape(batch, group, length, heads, dim).astype(rows.queries.dtype)
    )

    mass = received = None
    for block, weight in zip(blocks, weights, strict=True):
        if block.regions is None:
            continue
        mass = jnp.einsum("bgknts,bsm->bgtknm", weight, block.regions) / _tokens_first(total)
        mass = mass.reshape(batch, group, length, heads, -1)
        per_query = rows.weights[:, :, None, None, :] / total[..., 0]
        received = jnp.einsum("bgknts,bgknt->bskn", weight, per_query).reshape(batch, -1, heads)
    return Attended(values, mass, received)


def _tokens_first(array: Float[Array, "B G K n T one"]) -> Float[Array, "B G T K n one"]:
    return jnp.moveaxis(array, 4, 2)


def _scores(grouped: _Rows, block: KeyBlock, softcap: float, reach) -> Float[Array, "B G K n T S"]:
    shared = block.order.ndim == 2
    pattern = "bgtknh,bskh->bgknts" if shared else "bgtknh,bgskh->bgknts"
    scores = jnp.einsum(pattern, grouped.queries, block.keys, preferred_element_type=jnp.float32)
    if softcap:
        scores = jnp.tanh(scores / softcap) * softcap

    def per_query(x: Array) -> Array:
        """[B, 1 or G, 1, S]: every query of a row, and of a group if shared, meets the same keys."""
        return x[:, None, None] if shared else x[:, :, None]

    visible = (per_query(block.order) <= grouped.order[..., None]) & per_query(block.valid)
    if grouped.places is not None:
        visible &= jnp.abs(grouped.places[..., None] - per_query(block.places)) < reach
    return jnp.where(visible[:, :, None, None], scores, _HIDDEN)


def _weighted_values(weights, block) -> Float[Array, "B G T K n H"]:
    pattern = "bgknts,bskh->bgtknh" if block.order.ndim == 2 else "bgknts,bgskh->bgtknh"
    weights = weights.astype(block.values.dtype)
    return jnp.einsum(pattern, weights, block.values, preferred_element_type=jnp.float32)
