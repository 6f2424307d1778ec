"""Rows C7 and C8: where a completion ends."""

import jax.numpy as jnp
import numpy as np

from mmrpt_jax.objectives.completions import completion_mask, truncated_completions

PAD = EOS = 2  # the trap: many tokenizers pad with the end-of-sequence token
OTHER_EOS = 7


def test_c7_the_first_eos_is_in_and_everything_after_is_out():
    tokens = jnp.array([[5, 6, EOS, PAD, PAD], [EOS, 5, 6, 5, 6], [5, EOS, 9, EOS, 9], [5, 6, 5, 6, EOS]])
    expected = [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    np.testing.assert_array_equal(completion_mask(tokens, eos_ids=[EOS]), np.array(expected, bool))
    np.testing.assert_array_equal(truncated_completions(tokens, eos_ids=[EOS]), [False] * 4)


def test_c8_any_of_several_eos_ids_ends_a_completion():
    tokens = jnp.array([[5, OTHER_EOS, EOS, 5], [5, 5, EOS, OTHER_EOS], [5, 5, 5, 5]])
    expected = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    mask = completion_mask(tokens, eos_ids=[EOS, OTHER_EOS])
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    # Knowing one of the two ids only, the first completion ends too late.
    assert completion_mask(tokens, eos_ids=[EOS])[0].sum() == 3
    truncated = truncated_completions(tokens, eos_ids=[EOS, OTHER_EOS])
    np.testing.assert_array_equal(truncated, [False, False, True])


def test_c17_truncated_completions_leave_the_loss_mask():
    tokens = jnp.array([[5, EOS, PAD], [5, 5, 5]])
    mask = completion_mask(tokens, eos_ids=[EOS]) & ~truncated_completions(tokens, eos_ids=[EOS])[..., None]
    np.testing.assert_array_equal(mask, [[True, True, False], [False, False, False]])
