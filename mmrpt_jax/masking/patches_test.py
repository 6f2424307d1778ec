import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.masking.patches import hide_patches, random_patch_mask, top_patch_mask


def test_top_patch_mask_by_hand():
    received = jnp.asarray([[0.1, 0.4, 0.3, 0.2], [0.7, 0.1, 0.1, 0.1]])
    np.testing.assert_array_equal(top_patch_mask(received, 0.5), [[0, 1, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(top_patch_mask(received, 0.0), np.zeros((2, 4)))
    np.testing.assert_array_equal(top_patch_mask(received, 1.0), np.ones((2, 4)))


def test_top_patch_mask_counts_valid_patches_alone():
    received = jnp.asarray([9.0, 1.0, 2.0, 3.0, 4.0, 8.0])
    valid = jnp.asarray([False, True, True, True, True, False])
    np.testing.assert_array_equal(top_patch_mask(received, 0.5, valid=valid), [0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(top_patch_mask(received, 1.0, valid=valid), valid)


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.6, 6), (1.0, 10)])
def test_random_patch_mask_hides_an_exact_share(ratio, count):
    mask = random_patch_mask(jax.random.key(0), (3, 5, 10), ratio)
    assert mask.shape == (3, 5, 10)
    np.testing.assert_array_equal(mask.sum(-1), np.full((3, 5), count))


def test_random_patch_mask_is_uniform_over_patches_and_differs_between_images():
    mask = np.asarray(random_patch_mask(jax.random.key(1), (2000, 8), 0.25))
    np.testing.assert_allclose(mask.mean(0), 0.25, atol=0.05)
    assert len(np.unique(mask, axis=0)) == 28  # all pairs of eight patches


def test_random_patch_mask_spares_padding():
    valid = jnp.arange(10) < 4
    mask = random_patch_mask(jax.random.key(2), (6, 10), 0.5, valid=jnp.broadcast_to(valid, (6, 10)))
    np.testing.assert_array_equal(mask.sum(-1), np.full(6, 2))
    assert not mask[:, 4:].any()


def test_hidden_patches_are_painted_and_the_rest_is_left():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    painted = hide_patches(image, np.array([False, True, False, False, False, True]), 2, value=9)
    expected = image.copy()
    expected[0:2, 2:4] = expected[2:4, 4:6] = 9
    np.testing.assert_array_equal(painted, expected)
    with pytest.raises(ValueError, match="2 x 3 patches cannot hide 4"):
        hide_patches(image, np.ones(4, bool), 2)
