"""Rows C4 to C6 and C17: what a loss is divided by, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.reductions import divide, reduce_tokens

MODES = ["token", "sequence", "constant"]


def assert_close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-6, atol=1e-7)


def test_c4_length_bias_of_10_and_1000_tokens():
    lengths = jnp.array([[10], [1000]])
    mask = jnp.arange(1000) < lengths
    loss = jnp.broadcast_to(jnp.array([[1.0], [0.0]]), mask.shape)
    assert_close(divide(*reduce_tokens(loss, mask, mode="token")), 10 / 1010)
    assert_close(divide(*reduce_tokens(loss, mask, mode="sequence")), 1 / 2)
    assert_close(divide(*reduce_tokens(loss, mask, mode="constant", budget=1000)), 10 / 2000)


def test_c4_weight_of_one_token():
    mask = jnp.array([[True, True, False, False], [True, True, True, True]])

    def gradient(mode):
        return jax.grad(lambda x: divide(*reduce_tokens(x, mask, mode=mode, budget=5)))(jnp.ones((2, 4)))

    # Six tokens in all; two sequences of 2 and 4 tokens; two budgets of 5.
    assert_close(gradient("token"), [[1 / 6, 1 / 6, 0, 0], [1 / 6] * 4])
    assert_close(gradient("sequence"), [[1 / 4, 1 / 4, 0, 0], [1 / 8] * 4])
    assert_close(gradient("constant"), [[1 / 10, 1 / 10, 0, 0], [1 / 10] * 4])


def random_batch():
    rng = np.random.default_rng(0)
    loss = rng.normal(size=(8, 6)).astype(np.float32)
    mask = np.arange(6) < np.array([0, 1, 6, 2, 3, 6, 0, 5])[:, None]
    return loss, mask


def brute_force(loss, mask, mode):
    rows = [row[keep] for row, keep in zip(loss, mask, strict=True) if keep.any()]
    if mode == "token":
        return np.concatenate(rows).mean()
    if mode == "sequence":
        return np.mean([row.mean() for row in rows])
    return sum(row.sum() for row in rows) / (6 * len(rows))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("splits", [1, 2, 4, 8])
def test_c5_sums_and_counts_add_over_micro_batches(mode, splits):
    loss, mask = random_batch()
    parts = zip(np.split(loss, splits), np.split(mask, splits), strict=True)
    pairs = [reduce_tokens(jnp.asarray(x), jnp.asarray(m), mode=mode, budget=6) for x, m in parts]
    total, count = (sum(column) for column in zip(*pairs, strict=True))
    assert_close(divide(total, count), brute_force(loss, mask, mode))


@pytest.mark.parametrize("mode", MODES)
def test_c5_padding_does_not_matter(mode):
    loss, mask = random_batch()
    padded_loss = np.pad(loss, [(0, 3), (0, 5)], constant_values=np.nan)
    padded_mask = np.pad(mask, [(0, 3), (0, 5)])
    padded = reduce_tokens(jnp.asarray(padded_loss), jnp.asarray(padded_mask), mode=mode, budget=6)
    assert_close(divide(*padded), brute_force(loss, mask, mode))


@pytest.mark.parametrize("mode, total, count", [("token", 6, 3), ("sequence", 2, 1), ("constant", 6, 7)])
def test_c6_masked_completions_leave_the_count(mode, total, count):
    loss = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    # The second completion is masked: left are 1 + 2 + 3 = 6 over 3 tokens, their mean 2 over 1 sequence.
    mask = jnp.array([[True] * 3, [False] * 3])
    assert_close(reduce_tokens(loss, mask, mode=mode, budget=7), (total, count))


@pytest.mark.parametrize("mode", MODES)
def test_c17_an_all_masked_batch_has_loss_and_gradient_zero(mode):
    def loss_fn(x):
        return divide(*reduce_tokens(x, jnp.zeros((2, 3), bool), mode=mode, budget=3))

    loss, gradient = jax.value_and_grad(loss_fn)(jnp.full((2, 3), jnp.nan))
    assert loss == 0
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_divide_by_nothing_passes_no_gradient():
    value, gradient = jax.value_and_grad(divide)(3.0, 0.0)
    assert value == 0 and gradient == 0
    assert_close(divide(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.0])), [1.5, 0.0])


def test_bad_arguments():
    with pytest.raises(ValueError, match="mode is one of"):
        reduce_tokens(jnp.ones((1, 2)), jnp.ones((1, 2), bool), mode="mean")
    with pytest.raises(ValueError, match="pass budget"):
        reduce_tokens(jnp.ones((1, 2)), jnp.ones((1, 2), bool), mode="constant")
