import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmrpt_jax.data.prompts import Wording, encode_prompts
from mmrpt_jax.models import BranchTokens, abstract_parameters
from mmrpt_jax.models.packing import pack_lengths
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.training.policy import PolicyBatch, make_policy_step
from mmrpt_jax.training.state import new_state

G, R = 4, 6
# An update of size 1 against the gradient: what parameters lose is the gradient.
DESCENT = optax.sgd(1.0)
REGULARISED = {"kl": "k3", "kl_coefficient": 0.1, "entropy_coefficient": 0.01}
ADVANTAGES = np.random.default_rng(1).normal(size=(8, G)).astype(np.float32)


def on_policy(tokenizer, model, params, images, temperature):
    """Eight groups as the sampler draws them; many tokens end an answer, so that lengths differ."""
    texts = [Wording().fill_prompt("a [MASK] circle " + "blue " * i) for i in range(8)]
    prompt = encode_prompts(tokenizer, texts, image_tokens=4, lengths=(24,))
    rollout = jax.jit(
        make_rollout(
            model,
            group_size=G,
            max_tokens=R,
            end_ids=range(8, 90),
            banned=jnp.asarray(tokenizer.banned),
            temperature=temperature,
        )
    )(params, images, prompt, jax.random.key(3))
    lengths = np.asarray(rollout.valid).sum(-1)
    assert lengths.min() == 1 and lengths.max() == R and rollout.truncated.any()
    branches = BranchTokens(rollout.ids, rollout.valid)
    trained = np.ones((8, G), bool)
    batch = PolicyBatch(images, prompt, branches, rollout.logprobs, ADVANTAGES, trained, rollout.logprobs)
    return jax.tree.map(np.asarray, batch), np.asarray(rollout.truncated)


@pytest.fixture(scope="module")
def sampled(tiny_tokenizer, tiny_model, tiny_params, tiny_images):
    return functools.cache(functools.partial(on_policy, tiny_tokenizer, tiny_model, tiny_params, tiny_images))


@pytest.fixture(scope="module")
def off_policy(sampled):
    """The same groups as if an older policy had drawn them, with a reference; some ratios leave every range."""
    batch, _ = sampled(1.0)
    rng = np.random.default_rng(2)
    shift, drift = rng.normal(0, 0.3, (2, 8, G, R)).astype(np.float32)
    return batch._replace(
        behaviour_logprobs=batch.behaviour_logprobs + shift, ref_logprobs=batch.behaviour_logprobs + drift
    )


@pytest.fixture(scope="module")
def update(tiny_tokenizer, tiny_model, tiny_params):
    """(batch, options) -> (gradients, metrics) of one step from the tiny parameters; compiled once per options."""

    @functools.cache
    def compiled(temperature, micro_batches):
        options = {"banned": tiny_tokenizer.banned, "variant": "dapo", **REGULARISED}
        options |= {"temperature": temperature, "micro_batches": micro_batches}
        return jax.jit(make_policy_step(tiny_model, DESCENT, **options))

    def run(batch, params=tiny_params, *, temperature=1.0, micro_batches=1):
        state, metrics = compiled(temperature, micro_batches)(new_state(params, DESCENT), batch)
        assert int(state.step) == 1
        return jax.tree.map(lambda old, new: np.asarray(old) - new, params, state.params), metrics

    return run


@pytest.fixture(scope="module")
def reference(update, off_policy):
    return update(off_policy)


def spread(params, model, mesh):
    """Parameters where a run on that mesh has them."""
    abstract = abstract_parameters(model, mesh)
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), params, abstract)


def assert_same(found, expected):
    (gradients, metrics), (expected_gradients, expected_metrics) = found, expected
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected_gradients
    )
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_update_is_on_policy(update, sampled, temperature):
    batch, _ = sampled(temperature)
    _, metrics = update(batch, temperature=temperature)
    np.testing.assert_allclose(metrics["ratio"], 1.0, atol=1e-6)
    np.testing.assert_allclose(metrics["sampler_gap"], 0.0, atol=1e-5)
    assert metrics["clip_fraction"] == 0.0
    np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-8)
    # Every ratio is 1: the loss of a token is minus the advantage of its answer, and the price of entropy.
    weights = batch.branches.valid.sum(-1)
    surrogate = metrics["loss"] + 0.01 * metrics["entropy"]
    np.testing.assert_allclose(surrogate, -np.sum(weights * ADVANTAGES) / weights.sum(), rtol=1e-5)


def test_scoring_at_another_temperature_shows(update, sampled):
    batch, _ = sampled(0.7)
    assert update(batch)[1]["sampler_gap"] > 0.01


def test_loss_by_hand(tiny_tokenizer, tiny_params, tiny_forward, off_policy, reference):
    out = tiny_forward(
        tiny_params,
        off_policy.images,
        off_policy.prompt,
        off_policy.branches,
        banned=jnp.asarray(tiny_tokenizer.banned),
    )
    total = ratios = clipped = kl = entropy = gap = 0.0
    tokens = list(zip(*np.nonzero(off_policy.branches.valid), strict=True))
    for token in tokens:
        new, old, ref = (
            float(x[token]) for x in (out.logprobs, off_policy.behaviour_logprobs, off_policy.ref_logprobs)
        )
        advantage, ratio = float(ADVANTAGES[token[:2]]), np.exp(new - old)
        best = min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage)
        k3 = np.exp(ref - new) - 1 - (ref - new)
        total += -best + 0.1 * k3 - 0.01 * float(out.entropy[token])
        clipped += ratio > 1.28 if advantage > 0 else ratio < 0.8
        ratios, kl, gap = ratios + ratio, kl + k3, gap + abs(new - old)
        entropy += float(out.entropy[token])
    assert clipped > 0
    expected = {"loss": total, "ratio": ratios, "clip_fraction": clipped, "kl": kl, "entropy": entropy}
    expected |= {"sampler_gap": gap}
    _, metrics = reference
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value / len(tokens), rtol=1e-4, err_msg=name)


def test_truncated_completions_leave_loss_and_count(update, sampled, off_policy):
    _, truncated = sampled(1.0)
    left_out = off_policy._replace(trained=~truncated)
    # Another way to say it: their tokens are padding.
    erased = off_policy.branches._replace(valid=off_policy.branches.valid & ~truncated[..., None])
    wild = np.where(truncated, np.float32(1e6), ADVANTAGES)
    assert_same(
        update(left_out._replace(advantages=wild)),
        update(off_policy._replace(branches=erased)),
    )


def test_an_excluded_batch_teaches_nothing(update, off_policy):
    gradients, metrics = update(off_policy._replace(trained=np.zeros((8, G), bool)))
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))
    assert {float(value) for value in metrics.values()} == {0.0}


def test_neither_the_split_nor_a_longer_prompt_bucket_matters(update, off_policy, reference):
    longer = off_policy.prompt._replace(
        **{name: np.pad(x, [(0, 0), (0, 8)]) for name, x in off_policy.prompt._asdict().items()}
    )
    assert_same(update(off_policy._replace(prompt=longer), micro_batches=4), reference)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (4, 2, 1), (1, 8, 1), (2, 2, 2)])
def test_devices_do_not_matter(tiny_model, tiny_params, update, off_policy, reference, shape):
    mesh = make_mesh(*shape)
    params = spread(tiny_params, tiny_model, mesh)
    assert_same(update(jax.device_put(off_policy, batch_sharding(mesh)), params), reference)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 8, 1)])
def test_neither_do_answers_in_one_row(tiny_model, tiny_params, update, off_policy, reference, shape):
    lengths = np.asarray(off_policy.branches.valid).sum(-1)
    assert len({*lengths.sum(axis=1)}) > 1
    packing = pack_lengths(lengths, [int(lengths.sum(axis=1).max())])
    # Packing is made on the host: it comes as it is.
    mesh, packed = make_mesh(*shape), off_policy._replace(packing=None)
    params = spread(tiny_params, tiny_model, mesh)
    packed = jax.device_put(packed, batch_sharding(mesh))._replace(packing=packing)
    parts = 2 if shape == (2, 2, 2) else 1
    assert_same(update(packed, params, micro_batches=parts), reference)


def test_the_policy_sees_the_image(update, off_policy, reference):
    _, metrics = update(off_policy._replace(images=off_policy.images[::-1]))
    assert abs(metrics["sampler_gap"] - reference[1]["sampler_gap"]) > 1e-3
