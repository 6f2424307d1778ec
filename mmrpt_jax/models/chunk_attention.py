"""Softmax of one chunk of queries over blocks of keys, and its backward pass, which keeps no map."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

# Finite, so that a query which sees no key at all (padding) gives a uniform average instead of NaN.
_HIDDEN = -1e30
# Name of what the backward pass needs of a softmax, for policies of `jax.checkpoint`.
ATTENDED = "attended"


def heads_first(projected: Float[Array, "B *G S K H"]) -> Float[Array, "B K *G S H"]:
    """Keys or values in the layout of a `KeyBlock`."""
    return jnp.moveaxis(projected, -2, 1)


class KeyBlock(NamedTuple):
    """Keys and values that queries may look at; without a G axis they are shared by the whole group.

    Heads come first (`heads_first`), as products want them: decoding would turn a whole prompt around for every token.

    Attributes:
        keys: [B K S H] shared, or [B K G S H] own.
        values: like `keys`.
        order: [B S] or [B G S], compared with the queries' order.
        valid: [B S] or [B G S], False for padding.
        regions: [B S M] indicator columns of the regions whose attention mass is wanted, or None; shared
            blocks only.
        places: [B S] or [B G S], compared with the queries' places; None: near to all.
    """

    keys: Float[Array, "B K *G S H"]
    values: Float[Array, "B K *G S H"]
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


class Rows(NamedTuple):
    """Queries, scaled, and what is known of each; arrays [B G T ...]."""

    queries: Float[Array, "B G T N H"]
    order: Int[Array, "B G T"]
    places: Int[Array, "B G T"] | None
    weights: Float[Array, "B G T"] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def attended_values(
    rows: Rows, blocks: Sequence[KeyBlock], reach, softcap: float
) -> Float[Array, "B G T N H"]:
    """Attention of a chunk."""
    return look(rows, blocks, reach, softcap)[0].values


def _forwards(rows, blocks, reach, softcap):
    seen, normaliser = look(rows, blocks, reach, softcap)
    values, normaliser = (checkpoint_name(x, ATTENDED) for x in (seen.values, normaliser))
    return values, (rows, blocks, reach, values, normaliser)


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
    return Rows(of_queries, None, None, None), of_blocks, None


attended_values.defvjp(_forwards, _backwards)


def look(
    rows: Rows, blocks: Sequence[KeyBlock], reach, softcap: float
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
    queries: Float[Array, "B K G n T H"], rows: Rows, block: KeyBlock, reach, softcap: float
) -> Float[Array, "B K G n T S"]:
    scores = _product(queries, block.keys, (-1, -1), jnp.float32)
    if softcap:
        scores = jnp.tanh(scores / softcap) * softcap
    shared = block.order.ndim == 2

    def per_query(x: Array) -> Array:
        """[B, 1 or G, 1, S]: every query of a row, and of a group if shared, meets the same keys."""
        return x[:, None, None] if shared else x[:, :, None]

    visible = (per_query(block.order) <= rows.order[..., None]) & per_query(block.valid)
    if rows.places is not None and block.places is not None:
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


def _by_kv_head(rows: Float[Array, "B G T N H"], kv_heads: int) -> Float[Array, "B K G n T H"]:
    grouped = rows.reshape(*rows.shape[:3], kv_heads, -1, rows.shape[-1])
    return grouped.transpose(0, 3, 1, 4, 2, 5)


def _tokens_first(array: Float[Array, "B K G n T X"]) -> Float[Array, "B G T K n X"]:
    return array.transpose(0, 2, 4, 1, 3, 5)
