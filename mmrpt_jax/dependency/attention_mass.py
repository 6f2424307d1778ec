"""How much do words attend to the image?  Attention mass per key region, and the score built on it.

Attention is linear in its values: with 0/1 indicator columns in place of the values, column j of the output
is the probability mass that falls on region j. No attention map is kept, and a partition of the keys sums to
1.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def _attention_weights(
    queries: Float[Array, "*E T N H"],
    keys: Float[Array, "*E S K H"],
    mask: Bool[Array, "*E T S"],
    scale: float | None,
) -> Float[Array, "*E N T S"]:
    """Returns float32 softmax weights; rows whose mask is all False are zero."""
    *lead, num_queries, num_heads, head_dim = queries.shape
    num_kv = keys.shape[-2]
    if num_heads % num_kv:
        raise ValueError(
            f"{num_heads} query heads cannot share {num_kv} key heads: use a multiple of {num_kv}."
        )
    scale = head_dim**-0.5 if scale is None else scale
    grouped = queries.astype(jnp.float32).reshape(*lead, num_queries, num_kv, num_heads // num_kv, head_dim)
    logits = jnp.einsum(
        "...tkgh,...skh->...kgts",
        grouped * scale,
        keys.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    visible = mask[..., None, None, :, :]
    logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
    peak = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    unnormalised = jnp.where(visible, jnp.exp(logits - peak), 0.0)
    total = unnormalised.sum(axis=-1, keepdims=True)
    weights = unnormalised / jnp.where(total > 0, total, 1.0)
    return weights.reshape(*weights.shape[:-4], num_heads, *weights.shape[-2:])


def _split_rows(array: Array, axis: int, chunk: int) -> Array:
    """Cuts the rows along a negative `axis` into zero-padded chunks; the chunk index becomes axis 0."""
    rows = array.shape[axis]
    num_chunks = -(-rows // chunk)
    padding = [(0, 0)] * array.ndim
    padding[axis] = (0, num_chunks * chunk - rows)
    padded = jnp.pad(array, padding)
    split = padded.reshape(*array.shape[:axis], num_chunks, chunk, *array.shape[array.ndim + axis + 1 :])
    return jnp.moveaxis(split, array.ndim + axis, 0)


def region_mass(
    queries: Float[Array, "*E T N H"],
    keys: Float[Array, "*E S K H"],
    regions: Float[Array, "*#E S M"],
    mask: Bool[Array, "*#E T S"],
    *,
    query_chunk: int = 128,
    scale: float | None = None,
) -> Float[Array, "*E T N M"]:
    """Computes the attention mass of every query on every key region, `query_chunk` rows at a time.

    mass[t, n, m] = Σ_s softmax_s(scale · q[t, n] · k[s, n // (N / K)]) · regions[s, m], over the keys with
    mask[t, s]. In float32 whatever the input dtype; the largest temporary has query_chunk × S entries per
    head.

    Args:
      queries: queries after rotary embedding; N is a multiple of K (grouped-query attention).
      keys: keys after rotary embedding.
      regions: indicator columns, 1 where key s belongs to region m. Columns that partition the keys sum to 1.
      mask: which keys each query sees. A row without keys has mass 0.
      query_chunk: query rows per block.
      scale: factor on the logits, H ** -0.5 if None.

    Returns:
      Masses in [0, 1] for indicator columns.

    Raises:
      ValueError: if N is not a multiple of K.
    """
    num_queries = queries.shape[-3]
    chunk = min(query_chunk, num_queries)

    def block(rows: tuple[Array, Array]) -> Array:
        weights = _attention_weights(rows[0], keys, rows[1], scale)
        return jnp.einsum("...nts,...sm->...tnm", weights, regions.astype(jnp.float32))

    blocks = jax.lax.map(block, (_split_rows(queries, -3, chunk), _split_rows(mask, -2, chunk)))
    mass = jnp.moveaxis(blocks, 0, -4)
    return mass.reshape(*mass.shape[:-4], -1, *mass.shape[-2:])[..., :num_queries, :, :]


def received_mass(
    queries: Float[Array, "*E T N H"],
    keys: Float[Array, "*E S K H"],
    row_weights: Float[Array, "*#E T"],
    mask: Bool[Array, "*#E T S"],
    *,
    query_chunk: int = 128,
    scale: float | None = None,
) -> Float[Array, "*E S N"]:
    """Computes the attention mass that every key receives from the weighted query rows.

    received[s, n] = Σ_t row_weights[t] · softmax_s(scale · q[t, n] · k[s, n // (N / K)]), over the keys with
    mask[t, s]. Its sum over s is Σ_t row_weights[t]: with weights 1/|caption| on the caption's rows, a
    distribution over keys.

    Args:
      queries: queries after rotary embedding; N is a multiple of K (grouped-query attention).
      keys: keys after rotary embedding.
      row_weights: weight of each query row, 0 for padding.
      mask: which keys each query sees.
      query_chunk: query rows per block.
      scale: factor on the logits, H ** -0.5 if None.

    Returns:
      Received mass per key and head, float32.

    Raises:
      ValueError: if N is not a multiple of K.
    """
    chunk = min(query_chunk, queries.shape[-3])

    def block(rows: tuple[Array, Array, Array]) -> Array:
        weights = _attention_weights(rows[0], keys, rows[1], scale)
        return jnp.einsum("...nts,...t->...sn", weights, rows[2].astype(jnp.float32))

    rows = (
        _split_rows(queries, -3, chunk),
        _split_rows(mask, -2, chunk),
        _split_rows(row_weights, -1, chunk),
    )
    return jax.lax.map(block, rows).sum(axis=0)


def visual_dependency(
    visual: Float[Array, "L *E T N"],
    text: Float[Array, "L *E T N"],
    *,
    heads: Literal["mean", "max", "top_k", "pooled"] = "mean",
    top_k: int = 4,
    query_shift: Literal[0, -1] = 0,
) -> Float[Array, "*E T"]:
    """Computes D_vis per token: the image's share of the attention mass on image and text.

    D_vis(t) = 1/|L| Σ_l [ visual_l(t) / (visual_l(t) + text_l(t)) ], heads reduced inside each layer.
    Its mean over the tokens of a sentence is MMRPT's sentence score (arXiv 2512.07203). The reduction over
    heads and the row read for token t are not published: both are choices of this library.

    Args:
      visual: mass on the image keys for the selected layers, ≥ 0.
      text: mass on the text keys of the denominator, ≥ 0. Leaving out template and start tokens removes the
        start-token sink.
      heads: "mean" of the heads' shares, "max", mean of the "top_k" largest, or the share of the "pooled"
        masses (heads summed before the division).
      top_k: number of heads for heads="top_k".
      query_shift: 0 reads row t, where token t is the query; -1 reads row t - 1, which predicts token t. The
        first token's predictor lies outside the array and its own row stands in: pass the last prompt token
        as row 0 and drop that row afterwards to avoid it.

    Returns:
      Scores in [0, 1]; 0 where neither image nor text received mass.

    Raises:
      ValueError: for an unknown `heads` or `query_shift`.
    """
    visual, text = visual.astype(jnp.float32), text.astype(jnp.float32)
    if heads == "pooled":
        visual, text = visual.sum(axis=-1, keepdims=True), text.sum(axis=-1, keepdims=True)
    total = visual + text
    share = visual / jnp.where(total > 0, total, 1.0)
    if heads in ("mean", "pooled"):
        per_layer = share.mean(axis=-1)
    elif heads == "max":
        per_layer = share.max(axis=-1)
    elif heads == "top_k":
        per_layer = jax.lax.top_k(share, top_k)[0].mean(axis=-1)
    else:
        raise ValueError(f"heads={heads!r}: use 'mean', 'max', 'top_k' or 'pooled'.")
    score = per_layer.mean(axis=0)
    if query_shift not in (0, -1):
        raise ValueError(f"query_shift={query_shift}: use 0 or -1.")
    return jnp.concatenate([score[..., :1], score[..., :-1]], axis=-1) if query_shift else score


def lift(
    score: Float[Array, "*E T"],
    image_tokens: Int[Array, "*#E"] | int,
    visible_text: Int[Array, "*#E T"],
) -> Float[Array, "*E T"]:
    """Divides a visual share by its value under uniform attention: 1 means no preference for the image.

    lift(t) = score(t) · (|V| + text(t)) / |V|. A causal row sees more text the later it stands, so raw shares
    fall along the caption and grow with the image size; the quotient removes both. The correction is ours.

    Args:
      score: shares in [0, 1] from `visual_dependency`.
      image_tokens: |V|, the number of image keys, ≥ 1.
      visible_text: number of text keys of the denominator that the row read for token t sees: t + 1 in a
        caption whose preceding text is left out, t with query_shift=-1.

    Returns:
      Scores ≥ 0.
    """
    image = jnp.asarray(image_tokens, jnp.float32)[..., None]
    return score * (image + visible_text) / image
