import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.models.vlm import BranchTokens
from mmrpt_jax.models.vlm_test import CONFIG, VARIANT, make_batch, random_parameters, score
from mmrpt_jax.sampling import make_rollout

B, G, R, V = 8, 4, 6, CONFIG.vocab_size
# So many that some branches end and some do not.
ENDS = tuple(range(3, 15))
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def prompts():
    """Eight prompts, two of them alike but for the noise."""
    images, prompt, _ = make_batch()
    images, prompt = jax.tree.map(lambda x: np.tile(x, (B // 2, *[1] * (x.ndim - 1))), (images, prompt))
    images[2:] = np.random.default_rng(0).integers(0, 256, images[2:].shape)
    images[7] = images[5]
    return images, prompt


@pytest.fixture(scope="module")
def likely(params, prompts):
    """Probability of every id as the first token; each is scored as a branch of its own: [B V]."""
    candidates = np.tile(np.arange(V)[None, :, None], (B, 1, 1))
    branches = BranchTokens(candidates, np.ones(candidates.shape, bool))
    logprobs = score(CONFIG, params, *prompts, branches, temperature=TEMPERATURE).logprobs
    return np.exp(np.asarray(logprobs, float)[..., 0])


@pytest.fixture(scope="module")
def banned(likely):
    """Each prompt's favourite first token."""
    return np.isin(np.arange(V), likely.argmax(-1))


@pytest.fixture(scope="module")
def sampler(banned):
    options = dict(group_size=G, max_tokens=R, end_ids=ENDS, banned=banned, temperature=TEMPERATURE)
    return jax.jit(make_rollout(CONFIG, **options))


@pytest.fixture(scope="module")
def rollout(sampler, params, prompts):
    return jax.device_get(sampler(params, *prompts, jax.random.key(0)))


def test_sampled_logprobs_equal_scored_ones(params, prompts, banned, rollout):
    branches, valid = BranchTokens(rollout.ids, rollout.valid), rollout.valid
    scored = score(CONFIG, params, *prompts, branches, temperature=TEMPERATURE, banned=banned).logprobs
    np.testing.assert_allclose(rollout.logprobs[valid], scored[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(rollout.logprobs[~valid], 0.0)
    assert np.std(rollout.logprobs[valid]) > 0.1


@pytest.mark.parametrize("count, group, tokens", [(2, 2, 3), (1, 2, 3), (1, 1, 3), (1, 1, 1)])
def test_sampled_logprobs_equal_scored_ones_with_every_option(prompts, count, group, tokens):
    """Shared positions among them: the first branch token does not stand where the prompt's tokens end.

    With one head of keys, caches have up to three axes of one, which are not carried.
    """
    params = random_parameters(VARIANT)
    images, prompt = jax.tree.map(lambda x: x[:count], prompts)
    found = jax.jit(make_rollout(VARIANT, group_size=group, max_tokens=tokens, end_ids=()))(
        params, images, prompt, jax.random.key(0)
    )
    scored = score(VARIANT, params, images, prompt, BranchTokens(found.ids, found.valid)).logprobs
    np.testing.assert_allclose(found.logprobs, scored, rtol=1e-5, atol=1e-5)


def test_branches_end_with_the_first_end_token(rollout):
    rows = zip(*(x.reshape(B * G, -1) for x in (rollout.ids, rollout.valid, rollout.truncated)), strict=True)
    seen = set()
    for ids, valid, truncated in rows:
        ends = [step for step, token in enumerate(ids) if token in ENDS]
        length = ends[0] + 1 if ends else R
        np.testing.assert_array_equal(valid, np.arange(R) < length)
        np.testing.assert_array_equal(ids[length:], 0)
        assert bool(truncated) == (not ends)
        seen |= {int(ids[step]) for step in ends}
    assert 0 < rollout.truncated.sum() < B * G
    assert len(seen) > 3


def test_banned_ids_are_never_sampled(banned, likely, rollout):
    # Without the ban, one of them would be all but certain to appear.
    assert likely[:, banned].sum(-1).min() > 0.1
    assert not banned[rollout.ids[rollout.valid]].any()


def test_a_rollout_is_a_function_of_its_key(sampler, params, prompts, rollout):
    jax.tree.map(np.testing.assert_array_equal, sampler(params, *prompts, jax.random.key(0)), rollout)
    other = sampler(params, *prompts, jax.random.key(1))
    assert (other.ids != rollout.ids).mean() > 0.3


def test_members_of_a_group_differ_and_so_do_equal_prompts(prompts, rollout):
    for group in rollout.ids:
        assert len({tuple(row) for row in group}) > G / 2
    np.testing.assert_array_equal(prompts[0][5], prompts[0][7])
    assert (rollout.ids[5] != rollout.ids[7]).any()


def test_rows_do_not_depend_on_their_batch_mates(sampler, params, prompts, rollout):
    mates = jax.tree.map(lambda x: np.concatenate([x[:3], x[3:][::-1]]), prompts)
    mixed = sampler(params, *mates, jax.random.key(0))
    np.testing.assert_array_equal(mixed.ids[:3], rollout.ids[:3])
    assert (mixed.ids[3:] != rollout.ids[3:]).any()


@pytest.mark.parametrize("layout", [(8, 1, 1), (2, 4, 1), (4, 2, 1), (1, 8, 1), (2, 2, 2)])
def test_eight_devices_sample_what_one_does(layout, sampler, params, prompts, rollout):
    mesh = make_mesh(*layout)
    split = jax.device_put(params, jax.tree.map(lambda x: x.sharding, abstract_parameters(CONFIG, mesh)))
    with jax.set_mesh(mesh):
        eight = sampler(split, *jax.device_put(prompts, batch_sharding(mesh)), jax.random.key(0))
    assert len(eight.ids.sharding.device_set) == 8
    np.testing.assert_array_equal(eight.ids, rollout.ids)
    np.testing.assert_array_equal(eight.valid, rollout.valid)
    np.testing.assert_array_equal(eight.truncated, rollout.truncated)
    np.testing.assert_allclose(eight.logprobs, rollout.logprobs, rtol=1e-5, atol=1e-5)


def test_first_tokens_follow_the_softmax(params, prompts, banned, likely):
    size = 2000
    options = dict(group_size=size, max_tokens=1, end_ids=(), banned=banned, temperature=TEMPERATURE)
    sampled = jax.jit(make_rollout(CONFIG, **options))(params, *prompts, jax.random.key(2))
    for ids, shares in zip(np.asarray(sampled.ids)[..., 0], likely[:, ~banned], strict=True):
        counts = np.bincount(ids, minlength=V)[~banned]
        assert chisquare(counts, shares / shares.sum() * size).pvalue > 1e-3


def test_temperature_0_takes_the_most_likely_token(params, prompts):
    """Step by step, every id is scored as the next token behind what was chosen so far."""
    greedy = jax.jit(make_rollout(CONFIG, group_size=1, max_tokens=R, end_ids=(), temperature=0.0))
    found = greedy(params, *prompts, jax.random.key(0))
    ids = np.zeros((B, V, R), int)
    for step in range(R):
        ids[:, :, step] = np.arange(V)
        branches = BranchTokens(ids, np.broadcast_to(np.arange(R) <= step, ids.shape))
        logprobs = np.asarray(score(CONFIG, params, *prompts, branches).logprobs)[..., step]
        np.testing.assert_array_equal(found.ids[:, 0, step], logprobs.argmax(-1))
        np.testing.assert_allclose(found.logprobs[:, 0, step], logprobs.max(-1), rtol=1e-5, atol=1e-5)
        ids[:, :, step] = logprobs.argmax(-1)[:, None]
    assert found.truncated.all()
