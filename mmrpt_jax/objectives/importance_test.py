"""Row C10: correction for the mismatch of sampler and trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.objectives.importance import importance_weights, sequence_acceptance


def assert_close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5)


# Trainer over sampler: 0.3 / 0.6 = 0.5, 0.4 / 0.4 = 1, 0.6 / 0.1 = 6, and one token outside the mask.
TRAINER = jnp.log(jnp.array([0.3, 0.4, 0.6, 0.5]))
SAMPLER = jnp.log(jnp.array([0.6, 0.4, 0.1, 0.0]))
MASK = jnp.array([True, True, True, False])


def test_c10_truncated_weights():
    assert_close(importance_weights(TRAINER, SAMPLER, MASK, cap=2.0), [0.5, 1.0, 2.0, 0.0])


def test_c10_dropped_weights():
    assert_close(importance_weights(TRAINER, SAMPLER, MASK, cap=2.0, beyond="drop"), [0.5, 1.0, 0.0, 0.0])


def test_c10_weights_of_equal_policies_are_exactly_one():
    np.testing.assert_array_equal(importance_weights(TRAINER, TRAINER, MASK), [1.0, 1.0, 1.0, 0.0])


def test_c10_weights_are_constants():
    gradient = jax.grad(lambda lp: importance_weights(lp, SAMPLER, MASK).sum())(TRAINER)
    np.testing.assert_array_equal(gradient, np.zeros(4))


def test_c10_sequence_acceptance_does_not_depend_on_the_length():
    # Each token's ratio is 1.1. The product over 200 tokens is 1.9e8; the geometric mean is 1.1 always.
    sampler = jnp.full((2, 200), -1.0)
    trainer = sampler + jnp.log(1.1)
    mask = jnp.arange(200) < jnp.array([[3], [200]])
    assert sequence_acceptance(trainer, sampler, mask, low=0.9, high=1.2).tolist() == [True, True]
    assert sequence_acceptance(trainer, sampler, mask, low=0.9, high=1.05).tolist() == [False, False]


def test_c10_sequence_acceptance_on_both_sides_and_when_empty():
    # Geometric means (4 · 1)^½ = 2, (¼ · 1)^½ = ½, and an empty completion, whose ratio is 1.
    log_ratio = jnp.log(jnp.array([[4.0, 1.0], [0.25, 1.0], [9.0, 9.0]]))
    mask = jnp.array([[True, True], [True, True], [False, False]])
    zeros = jnp.zeros((3, 2))
    assert sequence_acceptance(log_ratio, zeros, mask, low=0.4, high=1.9).tolist() == [False, True, True]
    assert sequence_acceptance(log_ratio, zeros, mask, low=0.6, high=2.1).tolist() == [True, False, True]


def test_c10_unknown_choice():
    with pytest.raises(ValueError, match="beyond is one of"):
        importance_weights(TRAINER, SAMPLER, MASK, beyond="clip")
