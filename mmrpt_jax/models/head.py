"""From features to log-probabilities: sampler, old policy, new policy and reference all score tokens here."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.dependency import kl_divergence
from mmrpt_jax.models.sharding import prompt_shards


class TokenScores(NamedTuple):
    """Per token: log-probability of the given id (nats, ≤ 0) and entropy of the distribution (nats, ≥ 0)."""

    logprobs: Float[Array, "*E"]
    entropy: Float[Array, "*E"]


def output_matrix(params) -> Float[Array, "V D"]:
    """What features are multiplied with for logits: the embedding, where it is tied."""
    return params.get("lm_head", params["embedding"])


def logits(
    hidden: Float[Array, "*E D"],
    embedding: Float[Array, "V D"],
    *,
    temperature: float = 1.0,
    banned: Bool[Array, " V"] | None = None,
    softcap: float = 0.0,
) -> Float[Array, "*E V"]:
    """Float32 logits over the vocabulary, softly capped, divided by the temperature, with banned ids at -inf."""
    # Accelerators would round float32 factors to bfloat16 or TF32, and logits with them.
    scores = jnp.einsum(
        "...d,vd->...v",
        hidden,
        embedding,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    if softcap:
        scores = jnp.tanh(scores / softcap) * softcap
    scores = scores / temperature
    return scores if banned is None else jnp.where(banned, -jnp.inf, scores)


def score_tokens(
    hidden: Float[Array, "*E D"],
    embedding: Float[Array, "V D"],
    ids: Int[Array, "*E"],
    *,
    temperature: float = 1.0,
    banned: Bool[Array, " V"] | None = None,
    softcap: float = 0.0,
    chunk: int = 2048,
) -> TokenScores:
    """Scores `ids` under the features that predict them, `chunk` tokens of each device at a time.

    The logits of a chunk are recomputed in the backward pass, so memory holds one [chunk, V] array, never
    [*E, V].

    Args:
        hidden: features that predict each id.
        embedding: the output matrix.
        ids: tokens to score; a banned id (padding, often) scores -inf, so mask by selection, not by products.
        temperature: > 0.
        banned: ids that the sampler cannot produce, such as image placeholders.
        softcap: c in c·tanh(logit/c); 0: none.
        chunk: tokens per block and device, at most.
    """

    def score(hidden, ids):
        return _score(logits(hidden, embedding, temperature=temperature, banned=banned, softcap=softcap), ids)

    return _in_chunks(score, (hidden, ids), tokens=ids.shape, chunk=chunk)


def _score(scores: Float[Array, "c V"], ids: Int[Array, " c"]) -> TokenScores:
    logprobs = jax.nn.log_softmax(scores, axis=-1)
    chosen = jnp.take_along_axis(logprobs, ids[:, None], axis=-1)[:, 0]
    # A banned id has p = 0 and log p = -inf; its share of the entropy is 0, not NaN.
    finite = jnp.where(jnp.isfinite(logprobs), logprobs, 0.0)
    return TokenScores(chosen, -jnp.sum(jnp.exp(logprobs) * finite, axis=-1))


def token_kl(
    hidden: Float[Array, "*E D"],
    other: Float[Array, "*E D"],
    embedding: Float[Array, "V D"],
    *,
    softcap: float = 0.0,
    chunk: int = 2048,
) -> Float[Array, "*E"]:
    """KL(p ‖ q) of the next-token distributions that two features give, in nats, ≥ 0; memory as above."""

    def divergence(hidden, other):
        return kl_divergence(*(logits(x, embedding, softcap=softcap) for x in (hidden, other)))

    return _in_chunks(divergence, (hidden, other), tokens=hidden.shape[:-1], chunk=chunk)


def _in_chunks(
    function: Callable[..., Any], arrays: tuple[Array, ...], *, tokens: tuple[int, ...], chunk: int
) -> Any:
    """Maps `function` over arrays whose leading axes are `tokens`, a chunk of every device's tokens at a time.

    A chunk is a stride of the tokens and not a run of them: where they are split over devices, every device
    works on its share of every chunk.
    """
    count = math.prod(tokens)
    steps = -(-count // (chunk * prompt_shards()))
    padding = -count % steps

    def split(array):
        flat = array.reshape(count, *array.shape[len(tokens) :])
        padded = jnp.pad(flat, ((0, padding), *[(0, 0)] * (flat.ndim - 1)))
        return padded.reshape(-1, steps, *flat.shape[1:]).swapaxes(0, 1)

    results = jax.lax.map(jax.checkpoint(lambda rows: function(*rows)), tuple(map(split, arrays)))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1)[:count].reshape(tokens), results)
