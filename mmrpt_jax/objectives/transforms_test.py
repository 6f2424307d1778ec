"""Every public array function gives under jit, vmap, pmap and shard_map what it gives eagerly."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmrpt_jax import objectives

SHARDS, ROWS, G, R, K, I, C = 8, 2, 4, 5, 3, 4, 2
N = SHARDS * ROWS

_rng = np.random.default_rng(0)
REWARDS = _rng.normal(size=(N, G)).astype(np.float32)
VALID = _rng.random((N, G)) < 0.8
MULTI = _rng.normal(size=(N, G, K)).astype(np.float32)
LOGPROBS, BEHAVIOUR = (-_rng.random((2, N, R))).astype(np.float32)
ADVANTAGES = _rng.normal(size=N).astype(np.float32)
MASK = _rng.random((N, R)) < 0.7
TOKENS = _rng.integers(0, 4, size=(N, R)).astype(np.int32)
WEIGHTS = np.array([1.0, 0.5, 2.0], np.float32)
# The members of a group are spread over the shards.
FLAT = (REWARDS.reshape(-1), _rng.permutation(np.arange(N * G) % 6).astype(np.int32))

# One step of a flow for each image.
LATENTS, VELOCITY, OTHER = _rng.normal(size=(3, N, I, C)).astype(np.float32)
TIMES, LEVEL = _rng.uniform(0.1, 1, size=(2, N)).astype(np.float32)
NEXT = (TIMES * 0.8).astype(np.float32)
ERRORS = _rng.random((4, N)).astype(np.float32)
SEEDS = np.arange(N, dtype=np.int32)

PAIR = (LOGPROBS, BEHAVIOUR, MASK)
BATCH = (LOGPROBS, BEHAVIOUR, ADVANTAGES, MASK)
IMAGES = MASK[:, 0]
NFT = (VELOCITY, OTHER, LATENTS, LATENTS[::-1], TIMES, ADVANTAGES, IMAGES)


def policy_gradient(*batch):
    return jax.grad(lambda lp: objectives.policy_loss(lp, *batch[1:])[0])(batch[0])


def flow_gradient(velocity, latents, times, next_times, level, advantages):
    """Of the loss of a step half-way to zero."""

    def loss(velocity):
        step = objectives.flow_transition(latents, velocity, times, next_times, level)
        logprobs = objectives.transition_logprobs(0.5 * latents, *step)[..., None]
        kl = objectives.flow_kl(velocity, latents, times, next_times, level, kind="exact")[..., None]
        mask = jnp.ones(logprobs.shape, bool)
        return objectives.flow_policy_loss(logprobs, logprobs, advantages, mask, kl=kl, kl_coefficient=0.1)[0]

    return jax.grad(loss)(velocity)


def nft_gradient(*batch):
    return jax.grad(lambda velocity: objectives.nft_loss(velocity, *batch[1:])[0])(batch[0])


def for_each_seed(draw):
    return lambda seeds, *rows: jax.vmap(lambda seed, *row: draw(jax.random.key(seed), *row))(seeds, *rows)


def with_valid(fn, **kwargs):
    return lambda rewards, valid: fn(rewards, valid=valid, **kwargs)


# Functions of rows: the rows of the result do not depend on how the batch is split.
PER_ROW = {
    "group_advantages": (with_valid(objectives.group_advantages), (REWARDS, VALID)),
    "group_advantages_unscaled": (with_valid(objectives.group_advantages, scale="none"), (REWARDS, VALID)),
    "rloo_advantages": (with_valid(objectives.rloo_advantages), (REWARDS, VALID)),
    "zero_variance_groups": (with_valid(objectives.zero_variance_groups, tolerance=0.5), (REWARDS, VALID)),
    "sum_then_normalise": (lambda r: objectives.sum_then_normalise(r, WEIGHTS), (MULTI,)),
    "normalise_then_sum": (lambda r: objectives.normalise_then_sum(r, WEIGHTS), (MULTI,)),
    "completion_mask": (functools.partial(objectives.completion_mask, eos_ids=(2, 3)), (TOKENS,)),
    "truncated_completions": (functools.partial(objectives.truncated_completions, eos_ids=(2, 3)), (TOKENS,)),
    "log_ratio": (objectives.log_ratio, PAIR),
    "clipped_surrogate": (functools.partial(objectives.clipped_surrogate, dual_clip=3.0), BATCH),
    "gspo_surrogate": (objectives.gspo_surrogate, BATCH),
    "cispo_surrogate": (objectives.cispo_surrogate, BATCH),
    "importance_weights": (objectives.importance_weights, PAIR),
    "sequence_acceptance": (functools.partial(objectives.sequence_acceptance, low=0.9, high=1.1), PAIR),
    "kl_estimate": (objectives.kl_estimate, PAIR),
    "kl_penalised_rewards": (
        functools.partial(objectives.kl_penalised_rewards, coefficient=0.1),
        (ADVANTAGES, *PAIR),
    ),
    "divide": (objectives.divide, (ADVANTAGES, np.maximum(ADVANTAGES, 0))),
    "policy_gradient": (policy_gradient, BATCH),
    "timesteps": (lambda rows: rows * objectives.timesteps(steps=R - 1, shift=3.0), (LOGPROBS,)),
    "shift_times": (functools.partial(objectives.shift_times, shift=3.0), (TIMES,)),
    "logit_normal_times": (for_each_seed(lambda key: objectives.logit_normal_times(key, (K,))), (SEEDS,)),
    "interpolate": (objectives.interpolate, (LATENTS, OTHER, TIMES)),
    "velocity_target": (objectives.velocity_target, (LATENTS, OTHER)),
    "predict_clean": (objectives.predict_clean, (LATENTS, VELOCITY, TIMES)),
    "predict_noise": (objectives.predict_noise, (LATENTS, VELOCITY, TIMES)),
    "flow_sde_level": (functools.partial(objectives.flow_sde_level, second_time=0.9), (TIMES,)),
    "constant_level": (functools.partial(objectives.constant_level, level=0.3), (TIMES,)),
    "flow_transition": (objectives.flow_transition, (LATENTS, VELOCITY, TIMES, NEXT, LEVEL)),
    "sample_transition": (for_each_seed(objectives.sample_transition), (SEEDS, LATENTS, LEVEL)),
    "transition_logprobs": (objectives.transition_logprobs, (LATENTS, OTHER, LEVEL, IMAGES)),
    "transition_kl": (objectives.transition_kl, (LATENTS, OTHER, LEVEL, IMAGES)),
    "flow_kl": (objectives.flow_kl, (VELOCITY, OTHER, TIMES, NEXT, LEVEL, IMAGES)),
    "flow_kl_exact": (
        functools.partial(objectives.flow_kl, kind="exact"),
        (VELOCITY, OTHER, TIMES, NEXT, LEVEL, IMAGES),
    ),
    "flow_matching_errors": (objectives.flow_matching_errors, (VELOCITY, LATENTS, OTHER, IMAGES)),
    "reward_weights": (with_valid(objectives.reward_weights, temperature=0.5), (REWARDS, VALID)),
    "best_of_group_weights": (with_valid(objectives.best_of_group_weights), (REWARDS, VALID)),
    "preference_pairs": (with_valid(objectives.preference_pairs, tolerance=0.5), (REWARDS, VALID)),
    "flow_gradient": (flow_gradient, (VELOCITY, LATENTS, TIMES, NEXT, LEVEL, ADVANTAGES)),
    "nft_gradient": (nft_gradient, NFT),
}

# Functions whose results are added over the shards.
SUMMED = {
    f"reduce_tokens_{mode}": (
        functools.partial(objectives.reduce_tokens, mode=mode, budget=R),
        (LOGPROBS, MASK),
    )
    for mode in ("token", "sequence", "constant")
} | {
    f"policy_loss_{variant}": (functools.partial(objectives.policy_loss, variant=variant, budget=R), BATCH)
    for variant in objectives.VARIANTS
}
SUMMED |= {
    "flow_policy_loss": (lambda *batch: objectives.flow_policy_loss(*batch, kl=batch[0] ** 2), BATCH),
    "nft_loss": (objectives.nft_loss, NFT),
    "flow_matching_loss": (
        lambda *latents: objectives.flow_matching_loss(*latents[:-1], weights=latents[-1]),
        (VELOCITY, LATENTS, OTHER, IMAGES, TIMES),
    ),
    "flow_dpo_loss": (functools.partial(objectives.flow_dpo_loss, beta=10.0), (*ERRORS, IMAGES)),
}

# Functions of the whole batch: inside a map they need to know its axis.
ACROSS = {
    "group_advantages_batch": (functools.partial(objectives.group_advantages, scale="batch"), (REWARDS,)),
    "gdpo": (lambda r, axis_name=None: objectives.gdpo(r, WEIGHTS, axis_name=axis_name), (MULTI,)),
    "segment_advantages": (functools.partial(objectives.segment_advantages, num_groups=6), FLAT),
    "segment_advantages_batch": (
        functools.partial(objectives.segment_advantages, num_groups=6, scale="batch"),
        FLAT,
    ),
}


CASES = PER_ROW | SUMMED | ACROSS
ARGS = {name: args for name, (_, args) in CASES.items()}


def on_one_shard(args):
    """All cases in one program, as a user's own mapped function would call them."""
    rows = {name: fn(*args[name]) for name, (fn, _) in PER_ROW.items()}
    sums = {name: fn(*args[name]) for name, (fn, _) in SUMMED.items()}
    across = {name: fn(*args[name], axis_name="data") for name, (fn, _) in ACROSS.items()}
    return rows | jax.tree.map(lambda x: x[None], sums) | across


def over_leading_axis(mapped):
    shards = jax.tree.map(lambda x: x.reshape(SHARDS, -1, *x.shape[1:]), ARGS)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), mapped(shards))


@functools.cache
def mapped(how):
    if how == "vmap":
        return over_leading_axis(jax.jit(jax.vmap(on_one_shard, axis_name="data")))
    if how == "pmap":
        return over_leading_axis(jax.pmap(on_one_shard, axis_name="data"))
    mesh = Mesh(np.array(jax.devices()[:SHARDS]), ("data",))
    return jax.jit(jax.shard_map(on_one_shard, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(ARGS)


@functools.cache
def jitted():
    return jax.jit(lambda args: {name: fn(*args[name]) for name, (fn, _) in CASES.items()})(ARGS)


@functools.cache
def eager(name):
    fn, args = CASES[name]
    return fn(*(jnp.asarray(x) for x in args))


def assert_trees_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(e), rtol=1e-5, atol=1e-5)


def test_every_public_function_is_here():
    public = {name for name, value in vars(objectives).items() if inspect.isfunction(value)}
    assert public == {fn for fn in public if any(case.startswith(fn) for case in CASES)}


@pytest.mark.parametrize("name", CASES)
def test_jit(name):
    assert_trees_close(jitted()[name], eager(name))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("how", ["vmap", "pmap", "shard_map"])
def test_maps(how, name):
    result = mapped(how)[name]
    if name in SUMMED:
        result = jax.tree.map(lambda x: x.sum(0), result)
    assert_trees_close(result, eager(name))
