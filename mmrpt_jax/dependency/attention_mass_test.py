import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.dependency import attention_mass

region_mass = jax.jit(attention_mass.region_mass, static_argnames="query_chunk")
received_mass = jax.jit(attention_mass.received_mass, static_argnames="query_chunk")
visual_dependency = jax.jit(
    attention_mass.visual_dependency, static_argnames=("heads", "top_k", "query_shift")
)
lift = jax.jit(attention_mass.lift)

T, S, N, K, H = 7, 10, 4, 2, 8


def _inputs(seed=0, lead=()):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(*lead, T, N, H)).astype(np.float32)
    keys = rng.normal(size=(*lead, S, K, H)).astype(np.float32)
    # Row t sees the prompt's S - T keys and the caption up to itself.
    mask = np.arange(S)[None, :] <= np.arange(T)[:, None] + S - T
    regions = np.eye(3, dtype=np.float32)[np.array([0] + [1] * 4 + [2] * 5)]
    return queries, keys, regions, np.broadcast_to(mask, (*lead, T, S))


def _dense_weights(queries, keys, mask):
    """Softmax over the full map in float64, each query head beside its own copy of the shared key head."""
    logits = np.einsum("tnh,snh->nts", queries.astype(np.float64), np.repeat(keys, N // K, axis=1)) / np.sqrt(
        H
    )
    weights = np.where(mask, np.exp(logits), 0.0)
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("query_chunk", [1, 3, 7, 128])
def test_region_mass_equals_dense_softmax(query_chunk):
    queries, keys, regions, mask = _inputs()
    expected = np.einsum("nts,sm->tnm", _dense_weights(queries, keys, mask), regions)
    mass = region_mass(*map(jnp.asarray, (queries, keys, regions, mask)), query_chunk=query_chunk)
    np.testing.assert_allclose(mass, expected, atol=1e-6)


def test_region_mass_over_a_partition_is_one_and_leading_axes_match_single_sequences():
    queries, keys, regions, mask = _inputs(1, lead=(2, 3))
    mass = region_mass(*map(jnp.asarray, (queries, keys, regions, mask)), query_chunk=4)
    assert mass.shape == (2, 3, T, N, 3)
    np.testing.assert_allclose(mass.sum(-1), 1.0, atol=1e-6)
    expected = np.einsum("nts,sm->tnm", _dense_weights(queries[1, 2], keys[1, 2], mask[1, 2]), regions)
    np.testing.assert_allclose(mass[1, 2], expected, atol=1e-6)


def test_region_mass_equals_jax_attention_with_indicator_values():
    queries, keys, regions, mask = map(jnp.asarray, _inputs(2))
    values = jnp.zeros((S, K, H)).at[:, :, :3].set(regions[:, None, :])
    attended = jax.nn.dot_product_attention(queries, keys, values, mask=mask[None])
    np.testing.assert_allclose(region_mass(queries, keys, regions, mask), attended[..., :3], atol=1e-5)


def test_region_mass_of_equal_logits_counts_visible_keys():
    mask = jnp.asarray([[True, True, True, False], [True, True, True, True]])
    regions = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mass = region_mass(jnp.zeros((2, 1, 4)), jnp.ones((4, 1, 4)), regions, mask)
    np.testing.assert_allclose(mass[:, 0], [[2 / 3, 1 / 3], [1 / 2, 1 / 2]], rtol=1e-6)


def test_rows_without_keys_have_no_mass_and_no_nan_gradient():
    queries, keys, regions, mask = map(jnp.asarray, _inputs(3))
    mask = mask.at[2].set(False)
    gradient = jax.jit(jax.grad(lambda q: region_mass(q, keys, regions, mask)[..., 1].sum()))(queries)
    assert np.isfinite(gradient).all()
    assert gradient.any()
    assert not region_mass(queries, keys, regions, mask)[2].any()


def test_region_mass_survives_large_logits():
    queries = jnp.full((1, 1, 4), 100.0)
    keys = jnp.asarray([[[100.0] * 4], [[-100.0] * 4]])
    mass = region_mass(queries, keys, jnp.eye(2), jnp.ones((1, 2), bool))
    np.testing.assert_array_equal(mass[0, 0], [1.0, 0.0])


def test_region_mass_keeps_no_attention_map():
    shapes = ((512, 4, 8), (512, 4, 8), (512, 3), (512, 512))
    dtypes = (jnp.float32, jnp.float32, jnp.float32, jnp.bool_)
    inputs = map(jax.ShapeDtypeStruct, shapes, dtypes)
    compiled = jax.jit(lambda *x: region_mass(*x, query_chunk=16)).lower(*inputs).compile()
    map_bytes = 4 * 4 * 512 * 512
    assert compiled.memory_analysis().temp_size_in_bytes < map_bytes / 4


def test_bfloat16_inputs_are_reduced_in_float32():
    queries, keys, regions, mask = map(jnp.asarray, _inputs(4))
    mass = region_mass(queries.astype(jnp.bfloat16), keys.astype(jnp.bfloat16), regions, mask)
    assert mass.dtype == jnp.float32
    np.testing.assert_allclose(mass.sum(-1), 1.0, atol=1e-6)


def test_heads_that_do_not_divide_raise():
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key heads"):
        region_mass(jnp.ones((2, 3, 4)), jnp.ones((2, 2, 4)), jnp.ones((2, 1)), jnp.ones((2, 2), bool))


@pytest.mark.parametrize("query_chunk", [2, 128])
def test_received_mass_equals_dense_column_sums(query_chunk):
    queries, keys, _, mask = _inputs(5)
    row_weights = np.array([0, 0, 0.25, 0.25, 0.25, 0.25, 0], np.float32)
    expected = np.einsum("nts,t->sn", _dense_weights(queries, keys, mask), row_weights)
    received = received_mass(*map(jnp.asarray, (queries, keys, row_weights, mask)), query_chunk=query_chunk)
    np.testing.assert_allclose(received, expected, atol=1e-6)
    np.testing.assert_allclose(received.sum(0), 1.0, atol=1e-6)


# Two layers, two tokens, three heads. Shares, layer 0: token 0 (.5, .25, .75), token 1 (0, .2, .4);
# layer 1: token 0 (.1, .2, .3), token 1 (1, 1, 1).
VISUAL = np.array([[[0.2, 0.1, 0.3], [0.0, 0.1, 0.4]], [[0.1, 0.1, 0.3], [0.5, 0.2, 0.1]]])
TEXT = np.array([[[0.2, 0.3, 0.1], [0.6, 0.4, 0.6]], [[0.9, 0.4, 0.7], [0.0, 0.0, 0.0]]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(0.5 + 0.2) / 2, (0.2 + 1) / 2]),
        ({"heads": "max"}, [(0.75 + 0.3) / 2, (0.4 + 1) / 2]),
        ({"heads": "top_k", "top_k": 2}, [(0.625 + 0.25) / 2, (0.3 + 1) / 2]),
        ({"heads": "pooled"}, [(0.6 / 1.2 + 0.5 / 2.5) / 2, (0.5 / 2.1 + 1) / 2]),
        ({"query_shift": -1}, [0.35, 0.35]),
    ],
)
def test_visual_dependency_by_hand(options, expected):
    score = visual_dependency(jnp.asarray(VISUAL), jnp.asarray(TEXT), **options)
    np.testing.assert_allclose(score, expected, rtol=1e-6)


def test_visual_dependency_without_any_mass_is_zero():
    np.testing.assert_array_equal(visual_dependency(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3, 4))), np.zeros(3))


@pytest.mark.parametrize("options", [{"heads": "median"}, {"query_shift": 1}])
def test_visual_dependency_rejects_unknown_options(options):
    with pytest.raises(ValueError, match="use"):
        visual_dependency(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), **options)


def test_lift_of_uniform_attention_is_one_everywhere():
    """A row that spreads evenly over 16 image keys and its t + 1 text keys shows no preference at any t."""
    keys = jnp.ones((16 + 5, 1, 4))
    mask = jnp.arange(21)[None, :] <= jnp.arange(5)[:, None] + 16
    regions = jnp.stack([jnp.arange(21) < 16, jnp.arange(21) >= 16], -1).astype(jnp.float32)
    mass = region_mass(jnp.ones((5, 1, 4)), keys, regions, mask)[None]
    score = visual_dependency(mass[..., 0], mass[..., 1])
    np.testing.assert_allclose(score, 16 / (16 + np.arange(1, 6)), rtol=1e-6)
    np.testing.assert_allclose(lift(score, 16, jnp.arange(1, 6)), 1.0, rtol=1e-6)


def test_lift_takes_an_image_size_per_example():
    lifted = lift(jnp.full((2, 2), 0.5), jnp.asarray([4, 8]), jnp.asarray([[4, 8], [4, 8]]))
    np.testing.assert_allclose(lifted, [[1.0, 1.5], [0.75, 1.0]])
