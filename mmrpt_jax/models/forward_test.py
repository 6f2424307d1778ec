import jax
import numpy as np
import pytest

from mmrpt_jax.models.layers import rotate
from mmrpt_jax.models.vlm import VLM
from mmrpt_jax.models.vlm_test import CONFIG, DECODER, P, make_batch, random_parameters, score


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


def first_layer_map(params, state, own_keys, branches):
    """Attention of the branches' first layer over the prompt's keys, from weights, in float64: [B G R N P]."""
    layer = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), params["decoder"]["layers"])
    x = np.asarray(params["embedding"], np.float64)[branches.ids] * np.sqrt(DECODER.width)
    normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + DECODER.norm_eps) * layer["attention_norm"]["scale"]
    queries = (normed @ layer["query"]["kernel"]).reshape(*branches.ids.shape, DECODER.heads, -1)
    steps = np.arange(branches.ids.shape[2])
    positions = np.broadcast_to(np.asarray(state.length)[:, None, None] + steps, branches.ids.shape)
    queries = np.asarray(rotate(queries.astype(np.float32), positions, theta=DECODER.rope_theta))
    chart = np.zeros((*queries.shape[:-1], P))
    for b, g, t, n in np.ndindex(queries.shape[:-1]):
        keys = np.concatenate([state.keys[0, b], own_keys[0, b, g]])[:, n * DECODER.kv_heads // DECODER.heads]
        visible = np.concatenate([state.valid[b], branches.valid[b, g] & (steps <= t)])
        weights = np.exp(keys @ queries[b, g, t, n] / np.sqrt(DECODER.head_dim)) * visible
        chart[b, g, t, n] = (weights / weights.sum())[:P]
    return chart


def test_mass_and_received_are_those_of_the_first_layer(params, batch):
    images, prompt, branches = batch
    regions = np.stack([prompt.image_slots, prompt.valid & ~prompt.image_slots], axis=-1).astype(np.float32)
    weights = branches.valid.astype(np.float32)
    out = score(CONFIG, params, images, prompt, branches, regions=regions, query_weights=weights)
    run = jax.jit(VLM(CONFIG).apply, static_argnames="method")
    state = run({"params": params}, images, prompt, method=VLM.encode_prompt)
    _, layers = run({"params": params}, state, branches, method=VLM.extend)
    chart = first_layer_map(params, state, layers.keys, branches)

    assert out.mass.shape == (DECODER.layers, *branches.ids.shape, DECODER.heads, 2)
    expected = np.einsum("bgtns,bsm->bgtnm", chart, regions)
    np.testing.assert_allclose(out.mass[0][branches.valid], expected[branches.valid], atol=1e-5)
    np.testing.assert_allclose(out.received[0], np.einsum("bgtns,bgt->bsn", chart, weights), atol=1e-5)
    assert np.abs(out.mass[1] - out.mass[0]).max() > 1e-2


def test_asking_for_mass_changes_no_score(params, batch):
    images, prompt, branches = batch
    plain = score(CONFIG, params, images, prompt, branches)
    every_key = np.broadcast_to(np.eye(P, dtype=np.float32), (*prompt.ids.shape, P))
    weights = branches.valid.astype(np.float32)
    asked = score(CONFIG, params, images, prompt, branches, regions=every_key, query_weights=weights)
    np.testing.assert_allclose(asked.logprobs, plain.logprobs, atol=1e-6)
    assert plain.mass is None
    assert plain.received is None
    # With a region per key, the mass received is the weighted sum of the masses given.
    given = np.einsum("lbgtns,bgt->lbsn", asked.mass, weights)
    np.testing.assert_allclose(asked.received, given, atol=1e-5)
    hidden = np.broadcast_to(~prompt.valid[:, :, None], asked.received.shape[1:])
    np.testing.assert_array_equal(np.asarray(asked.received)[:, hidden], 0.0)


def test_temperature_and_banned_ids_reach_the_head(params, batch):
    images, prompt, branches = batch
    banned = np.zeros(CONFIG.vocab_size, bool)
    banned[:3] = True
    plain = score(CONFIG, params, images, prompt, branches)
    flat = score(CONFIG, params, images, prompt, branches, temperature=100.0, banned=banned)
    # So hot that all ids but the banned ones are about as likely.
    np.testing.assert_allclose(flat.entropy, np.log(CONFIG.vocab_size - 3), atol=1e-2)
    assert np.all(flat.entropy > plain.entropy)
