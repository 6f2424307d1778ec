import jax
import numpy as np
import pytest

from mmrpt_jax.models.rotary import rotary_axes, rotary_frequencies, rotate
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
    rotary = (function(DECODER.rope, DECODER.head_dim // 2) for function in (rotary_frequencies, rotary_axes))
    queries = np.asarray(rotate(queries.astype(np.float32), positions, *rotary))
    chart = np.zeros((*queries.shape[:-1], P))
    for b, g, t, n in np.ndindex(queries.shape[:-1]):
        kv_head = n * DECODER.kv_heads // DECODER.heads
        keys = np.concatenate([state.keys[0, b, kv_head], own_keys[0, b, kv_head, g]])
        visible = np.concatenate([state.valid[b], branches.valid[b, g] & (steps <= t)])
        weights = np.exp(keys @ queries[b, g, t, n] / np.sqrt(DECODER.head_dim)) * visible
        chart[b, g, t, n] = (weights / weights.sum())[:P]
    return chart


@pytest.fixture(scope="module")
def asked(params, batch):
    """Scores with a region per prompt key; padding does not count in what keys receive."""
    images, prompt, branches = batch
    regions = np.broadcast_to(np.eye(P, dtype=np.float32), (*prompt.ids.shape, P))
    weights = branches.valid.astype(np.float32)
    return score(CONFIG, params, images, prompt, branches, regions=regions, query_weights=weights)


def test_mass_and_received_are_those_of_the_first_layer(params, batch, asked):
    images, prompt, branches = batch

    @jax.jit
    def run(params):
        state = VLM(CONFIG).apply({"params": params}, images, prompt, method=VLM.encode_prompt)
        return state, VLM(CONFIG).apply({"params": params}, state, branches, method=VLM.extend)[1].keys

    chart = first_layer_map(params, *jax.device_get(run(params)), branches)
    assert asked.mass.shape == (DECODER.layers, *branches.ids.shape, DECODER.heads, P)
    np.testing.assert_allclose(asked.mass[0][branches.valid], chart[branches.valid], atol=1e-5)
    received = np.einsum("bgtns,bgt->bsn", chart, branches.valid)
    np.testing.assert_allclose(asked.received[0], received, atol=1e-5)


def test_every_layer_has_its_own_mass(batch, asked):
    _, prompt, branches = batch
    assert np.abs(asked.mass[1] - asked.mass[0]).max() > 1e-2
    # What keys receive is the sum of what counting queries give, and hidden keys get nothing.
    given = np.einsum("lbgtns,bgt->lbsn", asked.mass, branches.valid)
    np.testing.assert_allclose(asked.received, given, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(asked.received)[:, ~prompt.valid], 0.0)


def test_asking_for_mass_changes_no_score(params, batch, asked):
    plain = score(CONFIG, params, *batch)
    np.testing.assert_allclose(asked.logprobs, plain.logprobs, atol=1e-5)
    np.testing.assert_allclose(asked.entropy, plain.entropy, atol=1e-5)
    assert plain.mass is None
    assert plain.received is None


def test_temperature_and_banned_ids_reach_the_head(params, batch):
    banned = np.arange(CONFIG.vocab_size) < 3
    hot = score(CONFIG, params, *batch, temperature=1000.0, banned=banned)
    # So hot that all ids but the banned ones are equally likely.
    np.testing.assert_allclose(hot.entropy, np.log(CONFIG.vocab_size - 3), atol=1e-3)
    allowed = batch[2].ids >= 3
    np.testing.assert_allclose(hot.logprobs[allowed], -np.log(CONFIG.vocab_size - 3), atol=2e-2)
