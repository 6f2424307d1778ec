import jax.numpy as jnp
import numpy as np

from mmrpt_jax.masking.leak import keep_learnable, keep_unsolved


def test_keep_unsolved_drops_what_needs_no_image():
    blind = np.array([0.0, 0.25, 0.5, 1.0, np.nan])
    np.testing.assert_array_equal(keep_unsolved(blind, max_blind=0.25), [True, True, False, False, False])


def test_keep_unsolved_takes_log_probabilities():
    blind = jnp.log(jnp.asarray([0.9, 0.1]))
    np.testing.assert_array_equal(keep_unsolved(blind, max_blind=float(np.log(0.5))), [False, True])


def test_keep_learnable_is_a_window():
    rates = np.array([0.0, 0.125, 0.5, 0.875, 1.0, np.nan])
    np.testing.assert_array_equal(keep_learnable(rates), [False, True, True, True, False, False])
    window = keep_learnable(rates, low=0.125, high=0.5)
    np.testing.assert_array_equal(window, [False, True, True, False, False, False])
