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

    Scores and softmax are float32. Queries run chunk by chunk, and the backward pass computes the scores of a chunk
    anew from what the softmax was divided by (arXiv 2205.14135), so that no [T, S] map is ever held. The mass per
    region and the mass per key are summed in the same pass: they cost one narrow product more, not a second softmax,
    because attention is linear in its values.

    Args:
        queries: unscaled; the scale is applied here.
        order: the queries' order.
        blocks: at least one; at most one of them names regions.
        places: the queries' places, if not everything of lower order is seen.
        reach: keys must be less than so many places away.
        scale: factor on scores; None: 1/sqrt(H).
        softcap: c in c·tanh(score/c), which keeps scores between −c and c; 0: none.
        query_weights: weight of each query in `received`, 0 for padding; needed when a block names regions.
        query_chunk: queries of a branch in a chunk, at most.

    Raises:
        ValueError: a block names regions, but there are no `query_weights`; or queries have places, and a block has
            none.
    """
    if places is not None and any(block.places is None for block in blocks):
        raise ValueError("queries have places, and a block of keys has none: give it places, or them none")
    measured = any(block.regions is not None for block in blocks)
    if query_weights is None and measured:
        raise ValueError("a block names regions: pass query_weights, 0 for queries that do not count")
    scaled = queries * (queries.shape[-1] ** -0.5 if scale is None else scale)
    rows, length = _Rows(scaled, order, places, query_weights), queries.shape[2]
    blocks = [
        block._replace(keys=_heads_first(block.keys), values=_heads_first(block.values)) for block in blocks
    ]
    if measured:
        look = jax.checkpoint(lambda rows: _look(rows, blocks, reach, softcap)[0])
    else:
        look = lambda rows: Attended(_values_of(rows, blocks, reach, softcap), None, None)  # noqa: E731
    steps = -(-length // query_chunk)
    if steps == 1:
        return look(rows)

    def split(array):
        padding = [(0, 0)] * array.ndim
        padding[2] = (0, -length % steps)
        padded = jnp.pad(array, padding)
        return jnp.moveaxis(padded.reshape(*array.shape[:2], steps, -1, *array.shape[3:]), 2, 0)

    def join(chunks):
        joined = jnp.moveaxis(chunks, 0, 2)
        return joined.reshape(*joined.shape[:2], -1, *joined.shape[4:])[:, :, :length]

    # A loop, and not an unrolled one: XLA is free to run independent chunks at once, and to hold them all.
    seen = jax.lax.map(look, jax.tree.map(split, rows))
    values, mass = jax.tree.map(join, (seen.values, seen.mass))
    return Attended(values, mass, jax.tree.map(lambda x: x.sum(axis=0), seen.received))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _values_of(rows: _Rows, blocks: Sequence[KeyBlock], reach, softcap: float) -> Float[Array, "B G T N H"]:
    """Attention of a chunk; `blocks` have their heads first."""
    return _look(rows, blocks, reach, softcap)[0].values


def _forwards(rows, blocks, reach, softcap):
    seen, normaliser = _look(rows, blocks, reach, softcap)
    return seen.values, (rows, blocks, reach, seen.values, normaliser)


def _backwards(softcap, kept, towards):
    rows, blocks, reach, values, normaliser = kept
    kv_heads = blocks[0].keys.shape[1]
    queries, towards, values = (_by_kv_head(x, kv_heads) for x in (rows.queries, towards, values))
    # Weights sum to one, so that what a gradient says of all keys alike says nothing.
    common = jnp.sum(towards.astype(jnp.float32) * values, axis=-1, keepdims=True)
    of_queries, of_blocks = 0.0, []
    for block in blocks:
        scores = _scores(queries, rows, block, reach, softcap)
        weights = jnp.exp(scores - normaliser)
        of_scores = weights * (_product(towards, block.values, (-1, -1), jnp.float32) - common)
        if softcap:
            # Of hidden keys, no weight is left; their scores would overflow.
            of_scores *= 1.0 - jnp.square(jnp.maximum(scores / softcap, -1.0))
        of_scores, weights = of_scores.astype(queries.dtype), weights.astype(queries.dtype)
        of_queries += _product(of_scores, block.keys, (-1, -2), jnp.float32)
        of_keys = _sum_over_queries(queries, of_scores, block)
        of_blocks.append(KeyBlock(of_keys, _sum_over_queries(towards, weights, block), None, None))
    of_queries = _tokens_first(of_queries).reshape(rows.queries.shape).astype(rows.queries.dtype)
    return _Rows(of_queries, None, None, None), of_blocks, None


_values_of.defvjp(_forwards, _backwards)


def _look(
    rows: _Rows, blocks: Sequence[KeyBlock], reach, softcap: float
) -> tuple[Attended, Float[Array, "B K G n T 1"]]:
    """What a chunk of queries sees, and log Σ exp of the scores of each; 0 where all keys are hidden."""
    batch, group, length, heads, _ = rows.queries.shape
    kv_heads = blocks[0].keys.shape[1]
    queries = _by_kv_head(rows.queries, kv_heads)
    scores = [_scores(queries, rows, block, reach, softcap) for block in blocks]
    peak = jax.lax.stop_gradient(jnp.max(jnp.stack([s.max(axis=-1) for s in scores]), axis=0))[..., None]
    weights = [jnp.exp(s - peak) for s in scores]
    total = sum(w.sum(axis=-1, keepdims=True) for w in weights)
    # Normalising the output costs H per query; normalising the weights would cost S.
    values = sum(
        _product(w.astype(block.values.dtype), block.values, (-1, -2), jnp.float32)
        for w, block in zip(weights, blocks, strict=True)
    )
    values = _tokens_first(values / total).reshape(rows.queries.shape).astype(rows.queries.dtype)

    mass = received = None
    for block, weight in zip(blocks, weights, strict=True):
        if block.regions is None:
            continue
        mass = jnp.einsum("bkgnts,bsm->bkgntm", weight, block.regions) / total
        mass = _tokens_first(mass).reshape(batch, group, length, heads, -1)
        per_query = rows.weights[:, None, :, None, :] / total[..., 0]
        received = jnp.einsum("bkgnts,bkgnt->bskn", weight, per_query).reshape(batch, -1, heads)
    normaliser = jnp.where(peak > _HIDDEN, peak + jnp.log(total), 0.0)
    return Attended(values, mass, received), normaliser


def _scores(
    queries: Float[Array, "B K G n T H"], rows: _Rows, block: KeyBlock, reach, softcap: float
) -> Float[Array, "B K G n T S"]:
    scores = _product(queries, block.keys, (-1, -1), jnp.float32)
    if softcap:
        scores = jnp.tanh(scores / softcap) * softcap
    shared = block.order.ndim == 2

    def per_query(x: Array) -> Array:
        """[B, 1 or G, 1, S]: every query of a row, and of a group if shared, meets the same keys."""
        return x[:, None, None] if shared else x[:, :, None]

    visible = (per_query(block.order) <= rows.order[..., None]) & per_query(block.valid)
    if rows.places is not None:
        visible &= jnp.abs(rows.places[..., None] - per_query(block.places)) < reach
    return jnp.where(visible[:, None, :, None], scores, _HIDDEN)


def _product(
    rows: Float[Array, "B K G n T X"], keys: Float[Array, "B K *G S H"], over: tuple[int, int], dtype
) -> Float[Array, "B K G n T Y"]:
    """Rows times keys or values, over one axis of each; all rows that meet the same keys are one matrix."""
    return _dot(_matrix(rows, keys.ndim), keys, over, dtype).reshape(*rows.shape[:-1], -1)


def _sum_over_queries(
    rows: Float[Array, "B K G n T H"], scores: Float[Array, "B K G n T S"], block: KeyBlock
) -> Float[Array, "B K *G S H"]:
    """What all queries say to each key.

    The scores are the second factor: as the first, XLA on CPU would turn them around, which takes longer than the
    product.
    """
    ndim = block.keys.ndim
    return _dot(_matrix(rows, ndim), _matrix(scores, ndim), (-2, -2), block.keys.dtype).swapaxes(-1, -2)


def _dot(left: Array, right: Array, over: tuple[int, int], dtype) -> Array:
    """The product over one axis of each, the leading axes going along."""
    leading = tuple(range(left.ndim - 2))
    axes = tuple((axis % left.ndim,) for axis in over)
    return jax.lax.dot_general(left, right, (axes, (leading, leading)), preferred_element_type=dtype)


def _matrix(rows: Float[Array, "B K G n T X"], ndim: int) -> Float[Array, "B K *G rows X"]:
    return rows.reshape(*rows.shape[: ndim - 2], -1, rows.shape[-1])


def _heads_first(keys: Float[Array, "B *G S K H"]) -> Float[Array, "B K *G S H"]:
    return jnp.moveaxis(keys, -2, 1)


def _by_kv_head(rows: Float[Array, "B G T N H"], kv_heads: int) -> Float[Array, "B K G n T H"]:
    grouped = rows.reshape(*rows.shape[:3], kv_heads, -1, rows.shape[-1])
    return grouped.transpose(0, 3, 1, 4, 2, 5)


def _tokens_first(array: Float[Array, "B K G n T X"]) -> Float[Array, "B G T K n X"]:
    return array.transpose(0, 2, 4, 1, 3, 5)
