import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr

from mmrpt_jax.models.head import logits, output_matrix, score_tokens, token_kl
from mmrpt_jax.models.sharding import batch_sharding, make_mesh

B, G, R, D, V = 2, 3, 4, 8, 11
RNG = np.random.default_rng(0)
HIDDEN, OTHER = RNG.normal(size=(2, B, G, R, D)).astype(np.float32)
EMBEDDING = RNG.normal(size=(V, D)).astype(np.float32)
BANNED = np.isin(np.arange(V), [0, 5])
IDS = RNG.choice(np.flatnonzero(~BANNED), (B, G, R))
ALLOWED = np.flatnonzero(~BANNED)
# Where the allowed ids stand once the banned ones are struck out.
RANK = np.searchsorted(ALLOWED, IDS)


def dense_logprobs(hidden=HIDDEN, embedding=EMBEDDING, temperature=1.0):
    return log_softmax(hidden.astype(np.float64) @ embedding.astype(np.float64).T / temperature, axis=-1)


@pytest.mark.parametrize("chunk", [1, 5, 24, 2048])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("banned", [None, BANNED], ids=["all", "banned"])
def test_scores_equal_dense_log_softmax(chunk, temperature, banned):
    scores = score_tokens(HIDDEN, EMBEDDING, IDS, temperature=temperature, banned=banned, chunk=chunk)
    # A ban is the same as a smaller vocabulary.
    embedding, ids = (EMBEDDING, IDS) if banned is None else (EMBEDDING[ALLOWED], RANK)
    expected = dense_logprobs(embedding=embedding, temperature=temperature)
    chosen = np.take_along_axis(expected, ids[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores.logprobs, chosen, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores.entropy, -(np.exp(expected) * expected).sum(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [5, 2048])
def test_gradients_with_banned_ids_are_those_of_a_smaller_vocabulary(chunk):
    weights = np.random.default_rng(1).normal(size=(2, B, G, R)).astype(np.float32)

    def loss(hidden, embedding):
        scores = score_tokens(hidden, embedding, IDS, temperature=0.7, banned=BANNED, chunk=chunk)
        return jnp.sum(weights[0] * scores.logprobs) + jnp.sum(weights[1] * scores.entropy)

    def dense_loss(hidden, embedding):
        logprobs = jax.nn.log_softmax(hidden @ embedding[ALLOWED].T / 0.7)
        chosen = jnp.take_along_axis(logprobs, RANK[..., None], axis=-1)[..., 0]
        return jnp.sum(weights[0] * chosen) - jnp.sum(weights[1] * jnp.sum(jnp.exp(logprobs) * logprobs, -1))

    found, expected = (jax.jit(jax.grad(f, argnums=(0, 1)))(HIDDEN, EMBEDDING) for f in (loss, dense_loss))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)
    np.testing.assert_array_equal(found[1][BANNED], 0.0)


def test_a_banned_id_scores_minus_infinity_and_poisons_no_gradient():
    ids = np.where(np.arange(R) < 2, IDS, 0)

    def loss(hidden):
        scores = score_tokens(hidden, EMBEDDING, ids, banned=BANNED)
        return jnp.sum(jnp.where(ids > 0, scores.logprobs, 0.0)) + jnp.sum(scores.entropy), scores.logprobs

    gradient, logprobs = jax.grad(loss, has_aux=True)(HIDDEN)
    np.testing.assert_array_equal(np.isneginf(logprobs), ids == 0)
    assert np.isfinite(gradient).all()


def test_logits_of_bfloat16_features_are_float32():
    hidden, embedding = jnp.asarray(HIDDEN, jnp.bfloat16), jnp.asarray(EMBEDDING, jnp.bfloat16)
    scores = logits(hidden, embedding)
    assert scores.dtype == jnp.float32
    exact = np.asarray(hidden, np.float64) @ np.asarray(embedding, np.float64).T
    np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-5)


def test_no_logits_of_all_tokens_are_held():
    tokens, width, vocab = 4096, 8, 512
    ids = np.zeros(tokens, int)

    def loss(hidden, embedding):
        return score_tokens(hidden, embedding, ids, chunk=128).logprobs.sum()

    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((tokens, width), (vocab, width))]
    memory = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*inputs).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * tokens * vocab / 4


def test_every_device_scores_its_own_tokens():
    split = batch_sharding(make_mesh())
    hidden = jax.device_put(np.tile(HIDDEN, (8, 1, 1, 1)), split)
    ids = jax.device_put(np.tile(IDS, (8, 1, 1)), split)
    run = jax.jit(functools.partial(score_tokens, chunk=48))
    text = run.lower(hidden, EMBEDDING, ids).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    one_device = score_tokens(HIDDEN, EMBEDDING, IDS).logprobs
    np.testing.assert_allclose(
        run(hidden, EMBEDDING, ids).logprobs, np.tile(one_device, (8, 1, 1)), atol=1e-6
    )


@pytest.mark.parametrize("chunk", [5, 2048])
def test_token_kl_equals_scipy(chunk):
    p, q = np.exp(dense_logprobs(HIDDEN)), np.exp(dense_logprobs(OTHER))
    divergence = token_kl(HIDDEN, OTHER, EMBEDDING, chunk=chunk)
    np.testing.assert_allclose(divergence, rel_entr(p, q).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(token_kl(HIDDEN, HIDDEN, EMBEDDING, chunk=chunk), 0.0, atol=1e-6)


def test_capped_logits():
    capped = 3.0 * np.tanh(HIDDEN.astype(np.float64) @ EMBEDDING.T / 3.0)
    np.testing.assert_allclose(logits(HIDDEN, EMBEDDING, softcap=3.0), capped, rtol=1e-4, atol=1e-4)
    # The cap stands in front of the temperature.
    expected = np.take_along_axis(log_softmax(capped / 0.7, axis=-1), IDS[..., None], axis=-1)[..., 0]
    scores = score_tokens(HIDDEN, EMBEDDING, IDS, temperature=0.7, softcap=3.0)
    np.testing.assert_allclose(scores.logprobs, expected, rtol=1e-4, atol=1e-4)
    p, q = (
        log_softmax(3.0 * np.tanh(x.astype(np.float64) @ EMBEDDING.T / 3.0), axis=-1) for x in (HIDDEN, OTHER)
    )
    found = token_kl(HIDDEN, OTHER, EMBEDDING, softcap=3.0)
    np.testing.assert_allclose(found, rel_entr(np.exp(p), np.exp(q)).sum(-1), rtol=1e-3, atol=1e-4)


def test_the_output_matrix_is_the_embedding_unless_there_is_another():
    assert output_matrix({"embedding": EMBEDDING}) is EMBEDDING
    assert output_matrix({"embedding": EMBEDDING, "lm_head": HIDDEN}) is HIDDEN
