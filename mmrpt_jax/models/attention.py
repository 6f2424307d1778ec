"""Attention over a list of key blocks: the prompt's keys, shared by a group, and each branch's own.

A key is visible when it is valid and not later in `order` than the query. That one rule covers causal text
(order = position), bidirectional images (all patches share one order), padding (not valid) and a half-filled
cache (later slots are later in order).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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
    """

    keys: Float[Array, "B *G S K H"]
    values: Float[Array, "B *G S K H"]
    order: Int[Array, "B *G S"]
    valid: Bool[Array, "B *G S"]
    regions: Float[Array, "B S M"] | None = None


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


def attend(
    queries: Float[Array, "B G T N H"],
    order: Int[Array, "B G T"],
    blocks: Sequence[KeyBlock],
    *,
    query_weights: Float[Array, "B G T"] | None = None,
    query_chunk: int = 256,
) -> Attended:
    """Softmax attention of every query over the union of the blocks' visible keys.

    Scores and softmax are float32. Longer sequences than `query_chunk` run chunk by chunk, and each chunk is
    recomputed in the backward pass, so that no [T, S] map is ever held. The mass per region and the mass per
    key are summed in the same pass: they cost one narrow product more, not a second softmax, because
    attention is linear in its values.

    Args:
        queries: unscaled; the scale 1/sqrt(H) is applied here.
        order: the queries' order.
        blocks: at least one; at most one of them names regions.
        query_weights: weight of each query in `received`, 0 for padding; needed when a block names regions.
        query_chunk: rows of the score matrix held at a time, at most.

    Raises:
        ValueError: a block names regions, but there are no `query_weights`.
    """
    if query_weights is None and any(block.regions is not None for block in blocks):
        raise ValueError("a block names regions: pass query_weights, 0 for queries that do not count")
    length = queries.shape[2]
    if length <= query_chunk:
        return _attend_rows(queries, order, blocks, query_weights)
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
    @jax.checkpoint
    def chunk(rows):
        return _attend_rows(rows[0], rows[1], blocks, rows[2])

    seen = jax.lax.map(chunk, jax.tree.map(split, (queries, order, query_weights)))
    values, mass = jax.tree.map(join, (seen.values, seen.mass))
    return Attended(values, mass, jax.tree.map(lambda x: x.sum(axis=0), seen.received))


def _attend_rows(queries, order, blocks, query_weights) -> Attended:
    batch, group, length, heads, dim = queries.shape
    kv_heads = blocks[0].keys.shape[-2]
    grouped = queries.reshape(batch, group, length, kv_heads, heads // kv_heads, dim) * dim**-0.5

    scores = [_scores(grouped, order, block) for block in blocks]
    peak = jax.lax.stop_gradient(jnp.max(jnp.stack([s.max(axis=-1) for s in scores]), axis=0))[..., None]
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(w.sum(axis=-1, keepdims=True) for w in weights)
    # Normalising the output costs H per query; normalising the weights would cost S.
    values = sum(_weighted_values(w, block) for w, block in zip(weights, blocks, strict=True))
    values = (values / _tokens_first(total)).reshape(batch, group, length, heads, dim).astype(queries.dtype)

    mass = received = None
    for block, weight in zip(blocks, weights, strict=True):
        if block.regions is None:
            continue
        mass = jnp.einsum("bgknts,bsm->bgtknm", weight, block.regions) / _tokens_first(total)
        mass = mass.reshape(batch, group, length, heads, -1)
        per_query = query_weights[:, :, None, None, :] / total[..., 0]
        received = jnp.einsum("bgknts,bgknt->bskn", weight, per_query).reshape(batch, -1, heads)
    return Attended(values, mass, received)


def _tokens_first(array: Float[Array, "B G K n T one"]) -> Float[Array, "B G T K n one"]:
    return jnp.moveaxis(array, 4, 2)


def _scores(grouped, order, block) -> Float[Array, "B G K n T S"]:
    shared = block.order.ndim == 2
    pattern = "bgtknh,bskh->bgknts" if shared else "bgtknh,bgskh->bgknts"
    scores = jnp.einsum(pattern, grouped, block.keys, preferred_element_type=jnp.float32)
    # [B, 1 or G, 1, S]: every query of a row, and of a group if shared, meets the same keys.
    key_order, key_valid = (x[:, None, None] if shared else x[:, :, None] for x in (block.order, block.valid))
    visible = (key_order <= order[..., None]) & key_valid
    return jnp.where(visible[:, :, None, None], scores, _HIDDEN)


def _weighted_values(weights, block) -> Float[Array, "B G T K n H"]:
    pattern = "bgknts,bskh->bgtknh" if block.order.ndim == 2 else "bgknts,bgskh->bgtknh"
    weights = weights.astype(block.values.dtype)
    return jnp.einsum(pattern, weights, block.values, preferred_element_type=jnp.float32)
