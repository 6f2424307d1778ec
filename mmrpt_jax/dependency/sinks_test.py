import jax
import jax.numpy as jnp
import numpy as np

from mmrpt_jax.dependency import attention_mass, sinks

detect_sinks = jax.jit(sinks.detect_sinks, static_argnames=("threshold", "min_rows"))
remove_sinks, sink_regions = jax.jit(sinks.remove_sinks), jax.jit(sinks.sink_regions)
region_mass, visual_dependency = (
    jax.jit(attention_mass.region_mass),
    jax.jit(attention_mass.visual_dependency),
)

# Patch 0 draws every word, patch 3 one word alone (a looked-at object), the rest none in particular.
MASS = np.array([[0.5, 0.02, 0.02, 0.4, 0.02], [0.6, 0.02, 0.03, 0.02, 0.02], [0.5, 0.01, 0.02, 0.02, 0.02]])


def test_detect_sinks_needs_agreement_between_rows():
    np.testing.assert_array_equal(detect_sinks(jnp.asarray(MASS)), [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(detect_sinks(jnp.asarray(MASS), min_rows=0.3), [1, 0, 0, 1, 0])
    np.testing.assert_array_equal(detect_sinks(jnp.asarray(MASS), threshold=28.0), [0, 0, 0, 0, 0])


def test_detect_sinks_from_received_mass_alone():
    received = jnp.asarray(MASS).sum(0)
    np.testing.assert_array_equal(detect_sinks(received[None, :]), [1, 0, 0, 1, 0])


def test_detect_sinks_ignores_padding():
    rows = jnp.asarray([[False, True, True], [False, False, False]])
    patches = jnp.asarray([[False, True, True, True, True], [True] * 5])
    mass = jnp.asarray(np.stack([MASS, MASS]))
    np.testing.assert_array_equal(detect_sinks(mass, token_valid=rows), [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    # Without patch 0 the medians stay 0.02: patch 3 exceeds them in one row of three.
    found = detect_sinks(mass, patch_valid=patches, min_rows=0.3)
    np.testing.assert_array_equal(found, [[0, 0, 0, 1, 0], [1, 0, 0, 1, 0]])


def test_sink_regions_follow_the_order_of_image_keys():
    image = jnp.asarray([False, True, True, False, True, False])
    text = jnp.asarray([False, False, False, False, False, True])
    regions = sink_regions(image, text, jnp.asarray([False, True, True]))
    np.testing.assert_array_equal(regions[:, 0], [0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(regions[:, 1], [0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(regions[:, 2], [0, 0, 0, 0, 0, 1])


def test_remove_sinks_splits_by_hand_and_broadcasts_over_layers():
    mass = jnp.asarray([[[[0.1, 0.2, 0.3]], [[0.4, 0.0, 0.1]]]] * 2)  # L=2, B=1, T=2, N=1, I=3
    mass = mass.reshape(2, 1, 2, 1, 3)
    visual, sink = remove_sinks(mass, jnp.asarray([[True, False, False]]))
    np.testing.assert_allclose(visual[1, 0, :, 0], [0.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(sink[0, 0, :, 0], [0.1, 0.4], rtol=1e-6)
    text = jnp.full((2, 1, 2, 1), 0.4)
    np.testing.assert_allclose(visual_dependency(visual, text)[0], [0.5 / 0.9, 0.1 / 0.5], rtol=1e-6)
    np.testing.assert_allclose(visual_dependency(visual, text + sink)[0], [0.5, 0.1 / 0.9], rtol=1e-6)


def test_regions_and_patch_mass_give_the_same_split():
    rng = np.random.default_rng(0)
    queries = jnp.asarray(rng.normal(size=(4, 2, 8)), jnp.float32)
    keys = jnp.asarray(rng.normal(size=(7, 2, 8)), jnp.float32)
    image, mask = jnp.arange(7) < 5, jnp.ones((4, 7), bool)
    is_sink = jnp.asarray([False, True, False, False, True])
    masses = region_mass(queries, keys, sink_regions(image, ~image, is_sink), mask)
    per_patch = region_mass(queries, keys, jnp.eye(7)[:, :5], mask)
    visual, sink = remove_sinks(per_patch, is_sink)
    np.testing.assert_allclose(masses[..., 0], visual, atol=1e-6)
    np.testing.assert_allclose(masses[..., 1], sink, atol=1e-6)
    np.testing.assert_allclose(masses.sum(-1), 1.0, atol=1e-6)
