import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmrpt_jax.training.accumulate import make_update
from mmrpt_jax.training.state import apply_gradients, compile_step, make_optimizer, new_state

BATCH = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])


def make_params():
    return {"head": {"w": jnp.asarray([2.0, 3.0])}, "tower": {"v": jnp.asarray([5.0, 7.0])}}


def product(params, batch):
    """Mean of x·(w ∘ v): its gradient in w is the mean of x, times v."""
    values = batch @ (params["head"]["w"] * params["tower"]["v"])
    return values.sum(), (jnp.float32(len(batch)), {})


def head_only(path):
    return path.startswith("head/")


def test_moments_are_of_what_trains_alone():
    optimizer, params = make_optimizer(learning_rate=0.1, steps=5), make_params()
    state = new_state(params, optimizer, head_only)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert shapes == [(2,), (2,)]
    assert state.trained.keys() == {"head"} and state.frozen.keys() == {"tower"}
    assert state.params == params
    everything = new_state(params, optimizer)
    assert everything.frozen is None and everything.params is params


def test_what_is_frozen_rests_and_what_trains_moves_by_hand():
    optimizer = optax.sgd(0.5)
    step = compile_step(make_update(product, optimizer))
    state, metrics = step(new_state(make_params(), optimizer, head_only), BATCH)
    # Mean of x is (2, 3); times v (10, 21).
    np.testing.assert_allclose(state.params["head"]["w"], [2 - 5, 3 - 10.5])
    np.testing.assert_array_equal(state.params["tower"]["v"], [5, 7])
    np.testing.assert_allclose(metrics["gradient_norm"], np.hypot(10, 21), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 2 * 2 * 5 + 3 * 3 * 7)


def test_micro_batches_of_a_part_that_trains():
    optimizer = optax.sgd(0.5)
    step = compile_step(make_update(product, optimizer, micro_batches=2))
    state, _ = step(new_state(make_params(), optimizer, head_only), BATCH)
    np.testing.assert_allclose(state.params["head"]["w"], [2 - 5, 3 - 10.5])


def test_given_parameters_are_kept_and_the_frozen_ones_shared():
    optimizer, params = optax.sgd(0.5), make_params()
    state = new_state(params, optimizer, head_only, keep=True)
    state, _ = compile_step(make_update(product, optimizer))(state, BATCH)
    assert state.params["tower"]["v"] is params["tower"]["v"]
    np.testing.assert_array_equal(params["head"]["w"], [2, 3])
    np.testing.assert_array_equal(params["tower"]["v"], [5, 7])


def test_no_gradient_of_what_is_frozen_is_computed():
    """A weight's gradient is an outer product of x with what comes back: as costly as the forward pass."""
    wide = {"frozen": jnp.ones((64, 64)), "trained": jnp.ones((64,))}

    def loss(params, batch):
        return ((batch @ params["frozen"]) @ params["trained"]).sum(), (jnp.float32(1.0), {})

    def flops(trains):
        state, update = new_state(wide, optax.sgd(1.0), trains), make_update(loss, optax.sgd(1.0))
        return jax.jit(update).lower(state, jnp.ones((32, 64))).compile().cost_analysis()["flops"]

    product_flops = 2 * 32 * 64 * 64
    assert flops(None) - flops(lambda path: path == "trained") == pytest.approx(product_flops, rel=0.1)


def test_bfloat16_parameters_take_float32_steps():
    """Two steps of Adam on float32 copies, each rounded at its end."""
    optimizer = make_optimizer(learning_rate=1e-2, steps=10, weight_decay=0.1)
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.bfloat16)}
    gradients = [jnp.asarray(x, jnp.bfloat16) for x in np.random.default_rng(1).normal(size=(2, 4, 4))]
    state = new_state(params, optimizer)
    moments = optimizer.init(jax.tree.map(lambda x: x.astype(jnp.float32), params))
    expected = params["w"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim} == {"float32"}
    for gradient in gradients:
        state, norm = apply_gradients(state, jnp.zeros(()), {"w": gradient}, optimizer)
        wide, given = {"w": expected.astype(jnp.float32)}, {"w": gradient.astype(jnp.float32)}
        updates, moments = optimizer.update(given, moments, wide)
        expected = (wide["w"] + updates["w"]).astype(jnp.bfloat16)
        assert state.params["w"].dtype == jnp.bfloat16 and norm.dtype == jnp.float32
        np.testing.assert_array_equal(state.params["w"], expected)


def test_bfloat16_gradients_are_added_up_in_float32():
    """In bfloat16, 256 + 1 is 256."""
    params, parts = {"w": jnp.ones((), jnp.bfloat16)}, jnp.asarray([256.0] + [1.0] * 7, jnp.bfloat16)

    def loss(params, batch):
        return (params["w"] * batch).astype(jnp.float32).sum(), (jnp.float32(1 / 8), {})

    _, metrics = make_update(loss, optax.sgd(1.0), micro_batches=8)(new_state(params, optax.sgd(1.0)), parts)
    assert metrics["gradient_norm"] == 256 + 7


@pytest.mark.parametrize(
    "loss, gradient", [(jnp.nan, 1.0), (jnp.inf, 1.0), (0.0, jnp.nan), (0.0, -jnp.inf), (0.0, 1e30)]
)
def test_an_update_that_is_not_finite_is_skipped_and_counted(loss, gradient):
    """1e30 is finite, but not the norm: its square is above float32."""
    optimizer = make_optimizer(learning_rate=0.1, steps=10, weight_decay=0.1)
    good, bad = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([0.5, gradient])}
    apply = jax.jit(functools.partial(apply_gradients, optimizer=optimizer))
    before, _ = apply(new_state({"w": jnp.ones(2)}, optimizer), jnp.float32(0.5), good)
    state, _ = apply(before, jnp.float32(loss), bad)
    jax.tree.map(
        np.testing.assert_array_equal, (state.trained, state.opt_state), (before.trained, before.opt_state)
    )
    assert int(state.step) == 2 and tuple(map(int, state.skipped)) == (1, 1)
    state, _ = apply(state, jnp.float32(loss), bad)
    assert tuple(map(int, state.skipped)) == (2, 2)
    # As if the two had never been.
    state, _ = apply(state, jnp.float32(0.5), good)
    expected, _ = apply(before, jnp.float32(0.5), good)
    jax.tree.map(np.testing.assert_array_equal, state.trained, expected.trained)
    assert tuple(map(int, state.skipped)) == (2, 0)
