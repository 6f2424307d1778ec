"""From features to log-probabilities. The sampler, the old and the new policy and the reference all score tokens here."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.dependency import kl_divergence


class TokenScores(NamedTuple):
    """Per token: log-probability of the given id (nats, ≤ 0) and entropy of the distribution (nats, ≥ 0)."""

    logprobs: Float[Array, "*E"]
    entropy: Float[Array, "*E"]


def logits(
    hidden: Float[Array, "*E D"],
    embedding: Float[Array, "V D"],
    *,
    temperature: float = 1.0,
    banned: Bool[Array, "V"] | None = None,
) -> Float[Array, "*E V"]:
    """Float32 logits over the vocabulary, divided by the temperature, with banned ids at -inf."""
    scores = jnp.einsum("...d,vd->...v", hidden, embedding, preferred_element_type=jnp.float32) / temperature
    return scores if banned is None else jnp.where(banned, -jnp.inf, scores)


def score_tokens(
    hidden: Float[Array, "*E D"],
    embedding: Float[Array, "V D"],
    ids: Int[Array, "*E"],
    *,
    temperature: float = 1.0,
    banned: Bool[Array, "V"] | None = None,
    chunk: int = 2048,
) -> TokenScores:
    """Scores `ids` under the features that predict them, `chunk` tokens at a time.

    The logits of a chunk are recomputed in the backward pass, so memory holds one [chunk, V] array, never [*E, V].

    Args:
        hidden: features that predict each id.
        embedding: the tied output matrix.
        ids: tokens to score; a banned id scores -inf.
        temperature: > 0.
        banned: ids that the sampler cannot produce, such as image placeholders.
        chunk: tokens per block.
    """
    flat_hidden, flat_ids = hidden.reshape(-1, hidden.shape[-1]), ids.reshape(-1)
    count = flat_ids.shape[0]
    chunk = min(chunk, count)
    padding = -count % chunk
    rows = jnp.pad(flat_hidden, ((0, padding), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    targets = jnp.pad(flat_ids, (0, padding)).reshape(-1, chunk)

    @jax.checkpoint
    def score(block):
        return _score(logits(block[0], embedding, temperature=temperature, banned=banned), block[1])

    scores = jax.lax.map(score, (rows, targets))
    return TokenScores(*(array.reshape(-1)[:count].reshape(ids.shape) for array in scores))


def _score(scores: Float[Array, "c V"], ids: Int[Array, "c"]) -> TokenScores:
    logprobs = jax.nn.log_softmax(scores, axis=-1)
    chosen = jnp.take_along_axis(logprobs, ids[:, None], axis=-1)[:, 0]
    # A banned id has p = 0 and log p = -inf; its share of the entropy is 0, not NaN.
    finite = jnp.where(jnp.isfinite(logprobs), logprobs, 0.0)
    return TokenScores(chosen, -jnp.sum(jnp.exp(logprobs) * finite, axis=-1))


def token_kl(
    hidden: Float[Array, "*E D"], other: Float[Array, "*E D"], embedding: Float[Array, "V D"], *, chunk: int = 2048
) -> Float[Array, "*E"]:
    """KL(p ‖ q) in nats, ≥ 0, of the next-token distributions that two features give, `chunk` tokens at a time."""
    flat, count = hidden.reshape(-1, hidden.shape[-1]), hidden[..., 0].size
    chunk = min(chunk, count)
    rows = [
        jnp.pad(x.reshape(flat.shape), ((0, -count % chunk), (0, 0))).reshape(-1, chunk, flat.shape[-1])
        for x in (hidden, other)
    ]

    def divergence(block):
        return kl_divergence(logits(block[0], embedding), logits(block[1], embedding))

    return jax.lax.map(divergence, tuple(rows)).reshape(-1)[:count].reshape(hidden.shape[:-1])
