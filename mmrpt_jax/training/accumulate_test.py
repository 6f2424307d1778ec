import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.training.accumulate import accumulate_gradients

X = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0], [10.0, 11.0, 12.0]])
# Rows count 1, 3, 2 and 0 tokens; what counts adds up to 1 + (4 + 5 + 6) + (7 + 8) = 31, squared to 191.
MASK = jnp.asarray([[1, 0, 0], [1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)


def loss(weight, batch):
    x, mask = batch
    count = jnp.sum(mask, dtype=jnp.float32)
    squares = jnp.sum(jnp.where(mask, x**2, 0.0))
    return jnp.sum(jnp.where(mask, weight * x, 0.0)), (count, {"square": (squares, count)})


def accumulated(batch, micro_batches):
    mean = functools.partial(accumulate_gradients, loss, micro_batches=micro_batches)
    return jax.jit(mean)(jnp.asarray(2.0), batch)


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_one_division_over_unequal_parts(micro_batches):
    gradient, metrics = accumulated((X, MASK), micro_batches)
    # A mean of the rows' means would be 2 · (1 + 5 + 7.5) / 3 = 9.
    np.testing.assert_allclose(metrics["loss"], 2 * 31 / 6, rtol=1e-6)
    np.testing.assert_allclose(metrics["square"], 191 / 6, rtol=1e-6)
    np.testing.assert_allclose(gradient, 31 / 6, rtol=1e-6)
    assert metrics.keys() == {"loss", "square"}


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_an_empty_batch_has_no_loss(micro_batches):
    gradient, metrics = accumulated((X, jnp.zeros_like(MASK)), micro_batches)
    assert (float(gradient), float(metrics["loss"]), float(metrics["square"])) == (0.0, 0.0, 0.0)


def test_parts_must_divide_the_batch():
    with pytest.raises(ValueError, match="batch of 4 prompts does not divide into 3 micro-batches"):
        accumulated((X, MASK), 3)
