import functools

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.models.vlm import BranchTokens
from mmrpt_jax.models.vlm_test import CONFIG, VARIANT, make_batch, random_parameters, score
from mmrpt_jax.sampling import make_rollout

V = CONFIG.vocab_size
G, R = 16, 6
# So many that some branches end and some do not.
ENDS = tuple(range(3, 15))
BANNED = np.isin(np.arange(V), [0, 1, 2, 20])
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def prompts():
    images, prompt, _ = make_batch()
    return images, prompt


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@functools.cache
def sampler(config=CONFIG, **options):
    settings = (
        dict(group_size=G, max_tokens=R, end_ids=ENDS, banned=BANNED, temperature=TEMPERATURE) | options
    )
    return jax.jit(make_rollout(config, **settings))


@pytest.fixture(scope="module")
def rollout(params, prompts):
    return sampler()(params, *prompts, jax.random.key(0))


@pytest.mark.parametrize("config", [CONFIG, VARIANT], ids=["plain", "options"])
def test_sampled_logprobs_equal_scored_ones(config, prompts):
    params = random_parameters(config)
    rollout = sampler(config)(params, *prompts, jax.random.key(0))
    branches = BranchTokens(rollout.ids, rollout.valid)
    scored = score(config, params, *prompts, branches, temperature=TEMPERATURE, banned=BANNED)
    valid = np.asarray(rollout.valid)
    np.testing.assert_allclose(rollout.logprobs[valid], scored.logprobs[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(rollout.logprobs)[~valid], 0.0)
    # The scores are of this temperature: another one gives other numbers.
    cold = score(config, params, *prompts, branches, banned=BANNED)
    assert np.abs(cold.logprobs - scored.logprobs)[valid].mean() > 0.1


def test_branches_end_with_the_first_end_token(rollout):
    ids, valid, truncated = map(np.asarray, (rollout.ids, rollout.valid, rollout.truncated))
    seen = set()
    for row, kept, cut in zip(ids.reshape(-1, R), valid.reshape(-1, R), truncated.reshape(-1), strict=True):
        ends = [i for i, token in enumerate(row[: kept.sum()]) if token in ENDS]
        length = ends[0] + 1 if ends else R
        np.testing.assert_array_equal(kept, np.arange(R) < length)
        np.testing.assert_array_equal(row[length:], 0)
        assert cut == (not ends)
        seen |= {int(row[i]) for i in ends}
    assert 0 < truncated.sum() < truncated.size
    assert len(seen) > 3


def test_banned_ids_are_never_sampled(params, prompts, rollout):
    assert not BANNED[np.asarray(rollout.ids)[np.asarray(rollout.valid)]].any()
    # Not even where the policy would take them nearly always.
    favourite = next_token_logprobs(params, prompts, temperature=0.01).argmax(-1)
    everywhere = np.isin(np.arange(V), favourite)
    cold = make_rollout(CONFIG, group_size=2, max_tokens=1, end_ids=(), banned=everywhere, temperature=0.01)
    assert not everywhere[np.asarray(jax.jit(cold)(params, *prompts, jax.random.key(0)).ids)].any()


def test_a_rollout_is_a_function_of_its_key(params, prompts, rollout):
    again = sampler()(params, *prompts, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, rollout)
    other = sampler()(params, *prompts, jax.random.key(1))
    assert (np.asarray(other.ids) != np.asarray(rollout.ids)).mean() > 0.3


def test_members_of_a_group_differ(rollout):
    for group in np.asarray(rollout.ids):
        assert len({tuple(row) for row in group}) > G / 2


def test_rows_do_not_depend_on_their_batch_mates(params, prompts, rollout):
    first = jax.tree.map(lambda x: x[:1], prompts)
    alone = sampler()(params, *first, jax.random.key(0))
    np.testing.assert_array_equal(alone.ids[0], rollout.ids[0])
    np.testing.assert_array_equal(alone.valid[0], rollout.valid[0])


def next_token_logprobs(params, prompts, **options):
    """log p of every id as the first token, scored one candidate per branch: [B V]."""
    candidates = np.tile(np.arange(V)[None, :, None], (len(prompts[0]), 1, 1))
    branches = BranchTokens(candidates, np.ones(candidates.shape, bool))
    return np.asarray(score(CONFIG, params, *prompts, branches, **options).logprobs)[..., 0]


def test_first_tokens_follow_the_softmax(params, prompts):
    many = 4000
    sampled = sampler(group_size=many, max_tokens=1)(params, *prompts, jax.random.key(2))
    expected = np.exp(
        next_token_logprobs(params, prompts, temperature=TEMPERATURE, banned=BANNED).astype(float)
    )
    for ids, shares in zip(np.asarray(sampled.ids)[..., 0], expected, strict=True):
        counts = np.bincount(ids, minlength=V)
        common = shares * many > 5
        observed = [*counts[common], counts[~common].sum()]
        hoped = np.array([*shares[common], shares[~common].sum()])
        assert chisquare(observed, hoped / hoped.sum() * many).pvalue > 1e-3


def test_temperature_0_takes_the_most_likely_token(params, prompts):
    """Step by step, every id is scored as the next token behind what was chosen so far."""
    greedy = sampler(group_size=1, end_ids=(), temperature=0.0)(params, *prompts, jax.random.key(0))
    ids = np.zeros((len(prompts[0]), V, R), int)
    for step in range(R):
        ids[:, :, step] = np.arange(V)
        valid = np.broadcast_to(np.arange(R) <= step, ids.shape)
        logprobs = np.asarray(
            score(CONFIG, params, *prompts, BranchTokens(ids, valid), banned=BANNED).logprobs
        )
        best = logprobs[..., step].argmax(axis=-1)
        np.testing.assert_array_equal(greedy.ids[:, 0, step], best)
        np.testing.assert_allclose(greedy.logprobs[:, 0, step], logprobs[..., step].max(axis=-1), atol=1e-5)
        ids[:, :, step] = best[:, None]
    assert greedy.truncated.all()


def test_eight_devices_sample_what_one_does(params, prompts):
    images, prompt = jax.tree.map(lambda x: np.tile(x, (4, *[1] * (x.ndim - 1))), prompts)
    one = sampler()(params, images, prompt, jax.random.key(3))
    mesh = make_mesh(data=8)
    split = jax.device_put((images, prompt), batch_sharding(mesh))
    whole = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    eight = sampler()(whole, *split, jax.random.key(3))
    assert len(eight.ids.sharding.device_set) == 8
    np.testing.assert_array_equal(eight.ids, one.ids)
    np.testing.assert_array_equal(eight.valid, one.valid)
    np.testing.assert_array_equal(eight.truncated, one.truncated)
    np.testing.assert_allclose(eight.logprobs, one.logprobs, rtol=1e-5, atol=1e-5)
