"""What bfloat16 changes, and what it may not: sampler, trainer and optimizer at the types that a config asks for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmrpt_jax.models import VLM
from mmrpt_jax.models.head import logits
from mmrpt_jax.training.policy import make_policy_step
from mmrpt_jax.training.policy_test import on_policy
from mmrpt_jax.training.state import new_state

# (kept, computed)
TYPES = [("float32", "bfloat16"), ("bfloat16", "bfloat16")]
# Relative spacing of bfloat16 numbers.
EPS = 2.0**-8


@pytest.fixture(scope="module")
def at(tiny_model, tiny_params, tiny_tokenizer, tiny_images):
    """types -> (model, parameters, what it samples)."""

    @functools.cache
    def sample(kept, computed):
        model = dataclasses.replace(tiny_model, param_dtype=kept, compute_dtype=computed)
        params = jax.tree.map(lambda x: x.astype(kept), tiny_params)
        return model, params, on_policy(tiny_tokenizer, model, params, tiny_images, 1.0)[0]

    return sample


@pytest.mark.parametrize("types", TYPES)
def test_logprobs_are_close_to_those_of_float32(at, forward_of, tiny_forward, types):
    model, params, batch = at(*types)
    found = forward_of(model)(params, batch.images, batch.prompt, batch.branches)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    expected = tiny_forward(wide, batch.images, batch.prompt, batch.branches).logprobs
    gap = np.abs(found.logprobs - expected)[batch.branches.valid]
    assert found.logprobs.dtype == found.entropy.dtype == jnp.float32
    # A logit is a sum of 16 products of numbers around 1, behind two layers and a tower.
    assert gap.mean() < 8 * EPS and gap.max() > 1e-5


def test_activations_are_of_the_type_computed_in(at):
    for types in TYPES:
        model, params, batch = at(*types)
        state = jax.eval_shape(
            lambda params, batch, model=model: VLM(model).apply(
                {"params": params}, batch.images, batch.prompt, method=VLM.encode_prompt
            ),
            params,
            batch,
        )
        assert {x.dtype.name for x in (state.keys, state.values, state.last_hidden)} == {types[1]}


def test_the_head_computes_in_float32():
    rng = np.random.default_rng(0)
    hidden, embedding = (jnp.asarray(rng.normal(size=(5, 64)), jnp.bfloat16) for _ in range(2))
    expected = np.asarray(hidden, np.float64) @ np.asarray(embedding, np.float64).T
    found = logits(hidden, embedding)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("types", TYPES)
def test_the_first_update_is_on_policy_within_the_gap(at, tiny_tokenizer, types):
    model, params, batch = at(*types)
    optimizer = optax.adam(1e-2)
    step = make_policy_step(
        model, optimizer, temperature=1.0, banned=jnp.asarray(tiny_tokenizer.banned), variant="dapo"
    )
    before = new_state(params, optimizer)
    after, metrics = jax.jit(step)(before, batch)
    assert metrics["ratio"] == pytest.approx(1.0, abs=EPS)
    assert metrics["sampler_gap"] < 4 * EPS and metrics["clip_fraction"] == 0.0
    for state in (before, after):
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {types[0]}
        assert {leaf.dtype.name for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim} == {"float32"}
    assert np.abs(after.params["embedding"] - params["embedding"]).max() > 0
