import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.attention import FAR, attend
from mmrpt_jax.models.chunk_attention import KeyBlock

B, G, T, S, N, K, H = 2, 3, 7, 5, 4, 2, 8
PROMPT_LENGTHS = np.array([S, 3])
BRANCH_LENGTHS = np.array([[7, 4, 1], [2, 7, 5]])

run = jax.jit(attend, static_argnames=("query_chunk", "scale", "softcap", "causal"))


def tokens_first(block):
    """Keys, values, order and validity, as [B S ...] or [B G S ...]."""
    return *(np.moveaxis(x, 1, -2) for x in block[:2]), *block[2:4]


def dense(queries, order, blocks, places=None, reach=None, scale=H**-0.5, softcap=None):
    """Softmax over all blocks at once, in float64, query by query and head by head: values, and a map per block."""
    values = np.zeros(queries.shape)
    maps = [np.zeros((*queries.shape[:-1], block.order.shape[-1])) for block in blocks]
    sizes = np.cumsum([block.order.shape[-1] for block in blocks])
    for b, g, t, n in np.ndindex(queries.shape[:-1]):
        rows = [[x[b] if block.order.ndim == 2 else x[b, g] for x in tokens_first(block)] for block in blocks]
        keys, contents, orders, valid = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        head = n // (queries.shape[3] // keys.shape[1])
        scores = keys[:, head].astype(np.float64) @ queries[b, g, t, n] * scale
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        visible = valid & (orders <= order[b, g, t])
        if places is not None:
            stood = [block.places[b] if block.order.ndim == 2 else block.places[b, g] for block in blocks]
            visible &= np.abs(np.concatenate(stood) - places[b, g, t]) < reach
            if not visible.any():  # padding
                continue
        weights = np.exp(scores - scores[visible].max()) * visible
        weights /= weights.sum()
        values[b, g, t, n] = weights @ contents[:, head]
        for chart, part in zip(maps, np.split(weights, sizes[:-1]), strict=True):
            chart[b, g, t, n] = part
    return values, maps


def prefix(lengths, size):
    return np.arange(size) < lengths[..., None]


def normal(rng, *shape):
    return rng.normal(0.0, 2.0, shape).astype(np.float32)


@pytest.fixture(scope="module")
def branches():
    """Branches of different lengths behind prompts of different lengths, as causal text."""
    rng = np.random.default_rng(0)
    keys, values = normal(rng, 2, B, K, S, H)
    shared = KeyBlock(keys, values, np.broadcast_to(np.arange(S), (B, S)), prefix(PROMPT_LENGTHS, S))
    order = np.broadcast_to(PROMPT_LENGTHS[:, None, None] + np.arange(T), (B, G, T))
    keys, values = normal(rng, 2, B, K, G, T, H)
    own = KeyBlock(keys, values, order, prefix(BRANCH_LENGTHS, T))
    return normal(rng, B, G, T, N, H), order, [shared, own]


@pytest.fixture(scope="module")
def patches():
    """Images alone, without a group: every patch sees every patch."""
    rng = np.random.default_rng(1)
    order = np.zeros((B, 1, T), int)
    keys, values = normal(rng, 2, B, K, 1, T, H)
    own = KeyBlock(keys, values, order, order == 0)
    return normal(rng, B, 1, T, N, H), order, [own]


@pytest.fixture(scope="module")
def regions():
    """The first two prompt keys, and the other valid ones."""
    first = np.arange(S) < 2
    valid = prefix(PROMPT_LENGTHS, S)
    return np.stack([first & valid, ~first & valid], axis=-1).astype(np.float32)


@pytest.mark.parametrize("query_chunk", [1, 3, 256])
@pytest.mark.parametrize("case", ["branches", "patches"])
def test_values_equal_dense_softmax(case, query_chunk, request):
    queries, order, blocks = request.getfixturevalue(case)
    expected, _ = dense(queries, order, blocks)
    seen = run(queries, order, blocks, query_chunk=query_chunk)
    np.testing.assert_allclose(seen.values, expected, rtol=1e-5, atol=1e-5)
    assert seen.mass is None
    assert seen.received is None


@pytest.mark.parametrize("query_chunk", [1, 2, 3, 256])
def test_causal_queries_are_spared_what_is_hidden_anyway(branches, query_chunk):
    queries, order, blocks = branches
    expected, _ = dense(queries, order, blocks)
    seen = run(queries, order, blocks, query_chunk=query_chunk, causal=True)
    np.testing.assert_allclose(seen.values, expected, rtol=1e-5, atol=1e-5)


def test_causal_queries_compute_less():
    """Of 4 x 4 squares of queries and keys, those below the diagonal and on it: 10 of 16."""
    length = 512
    order = np.broadcast_to(np.arange(length), (1, 1, length))
    inputs = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 1, length, N, H), (1, K, 1, length, H))
    ]

    def flops(**options):
        def loss(queries, keys):
            return attend(queries, order, [KeyBlock(keys, keys, order, order >= 0)], **options).values.sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*inputs).compile().cost_analysis()["flops"]

    assert flops(query_chunk=128, causal=True) / flops(query_chunk=512) == pytest.approx(10 / 16, abs=0.02)


@pytest.mark.parametrize("query_chunk", [3, 256])
def test_scale_and_softcap(branches, query_chunk):
    queries, order, blocks = branches
    options = {"scale": 0.7, "softcap": 2.0}
    expected, _ = dense(queries, order, blocks, **options)
    seen = run(queries, order, blocks, query_chunk=query_chunk, **options)
    np.testing.assert_allclose(seen.values, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - dense(queries, order, blocks, scale=0.7)[0]).max() > 0.1


@pytest.mark.parametrize("query_chunk", [3, 256])
@pytest.mark.parametrize("reach", [1, 4, FAR])
def test_a_sliding_window_reaches_into_the_prompt(branches, reach, query_chunk):
    queries, order, (shared, own) = branches
    blocks = [shared._replace(places=shared.order), own._replace(places=order)]
    expected, (to_prompt, _) = dense(queries, order, blocks, order, reach)
    seen = run(queries, order, blocks, places=order, reach=reach, query_chunk=query_chunk)
    np.testing.assert_allclose(seen.values[own.valid], expected[own.valid], rtol=1e-5, atol=1e-5)
    # The last prompt token is one place before the first branch token.
    assert (to_prompt[:, :, 0].max() > 0) == (reach > 1)


def test_windows_and_images_of_a_row_are_kept_apart(patches):
    """Two images, of two windows and of one: places of windows are equal, those of images far apart."""
    queries, order, (own,) = patches
    image, window = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0, 0])
    places = np.broadcast_to(2 * FAR * image + window, order.shape)
    seen = {
        reach: run(queries, order, [own._replace(places=places)], places=places, reach=reach)
        for reach in (1, FAR)
    }
    for reach, groups in ((1, 2 * image + window), (FAR, image)):
        for group in set(groups):
            part = groups == group
            alone = KeyBlock(*(x[:, :, :, part] for x in own[:2]), *(x[:, :, part] for x in own[2:4]))
            expected, _ = dense(queries[:, :, part], order[:, :, part], [alone])
            np.testing.assert_allclose(seen[reach].values[:, :, part], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("query_chunk", [3, 256])
def test_mass_and_received_equal_the_dense_map(branches, regions, query_chunk, causal):
    queries, order, (shared, own) = branches
    _, (to_prompt, to_branch) = dense(queries, order, (shared, own))
    weights = np.where(own.valid, np.random.default_rng(2).random((B, G, T)), 0.0).astype(np.float32)
    blocks = [shared._replace(regions=regions), own]
    seen = run(queries, order, blocks, query_weights=weights, query_chunk=query_chunk, causal=causal)

    np.testing.assert_allclose(seen.mass, np.einsum("bgtns,bsm->bgtnm", to_prompt, regions), atol=1e-6)
    # The regions partition the prompt; what is left lies on the branch.
    np.testing.assert_allclose(seen.mass.sum(-1) + to_branch.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(seen.received, np.einsum("bgtns,bgt->bsn", to_prompt, weights), atol=1e-5)
    np.testing.assert_array_equal(np.asarray(seen.received)[~shared.valid], 0.0)


def test_mass_over_a_partition_of_all_keys_is_one(branches, regions):
    queries, order, (shared, _) = branches
    weights = np.ones((B, G, T), np.float32)
    seen = run(queries, order, [shared._replace(regions=regions)], query_weights=weights, query_chunk=2)
    np.testing.assert_allclose(seen.mass.sum(-1), 1.0, atol=1e-6)
    # Every query hands out a mass of 1 per head.
    np.testing.assert_allclose(seen.received.sum(1), G * T, rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
@pytest.mark.parametrize("reach", [None, 3])
def test_gradients_are_slopes(softcap, reach, causal, branches):
    """Along directions in queries, keys and values, by differences of the float64 softmax; chunks of two queries."""
    queries, order, blocks = branches
    rng = np.random.default_rng(7)
    probe = normal(rng, *queries.shape)
    # Where all keys are hidden, the reference has no average.
    probe[~np.isin(np.arange(T), [0]) & ~blocks[1].valid] = 0.0
    places = order if reach else None
    near = [block._replace(places=block.order) for block in blocks]

    def filled(arrays):
        pairs = zip(near, arrays[1::2], arrays[2::2], strict=True)
        return [block._replace(keys=keys, values=values) for block, keys, values in pairs]

    @jax.jit
    @jax.grad
    def slopes(arrays, reach):
        seen = attend(
            arrays[0],
            order,
            filled(arrays),
            places=places,
            reach=reach,
            softcap=softcap,
            query_chunk=2,
            causal=causal,
        )
        return jnp.sum(probe * seen.values)

    def along(arrays):
        values, _ = dense(arrays[0], order, filled(arrays), places, reach, softcap=softcap)
        return np.sum(probe * values)

    arrays = [queries, *(array for block in blocks for array in (block.keys, block.values))]
    found = slopes(arrays, FAR if reach is None else reach)
    for number, gradient in enumerate(found):
        direction = [np.zeros(array.shape) for array in arrays]
        direction[number] = rng.normal(size=arrays[number].shape)
        moved = [
            along([array + sign * 1e-5 * step for array, step in zip(arrays, direction, strict=True)])
            for sign in (1, -1)
        ]
        slope = (moved[0] - moved[1]) / 2e-5
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction[number])
        assert scale > 1.0
        np.testing.assert_allclose(np.sum(gradient * direction[number]), slope, atol=1e-5 * scale)


@pytest.mark.parametrize("case", ["branches", "patches"])
def test_chunked_gradients_equal_unchunked_ones(case, request):
    queries, order, blocks = request.getfixturevalue(case)
    probe = normal(np.random.default_rng(3), *queries.shape)

    @functools.partial(jax.jit, static_argnames="query_chunk")
    @jax.grad
    def differentiate(arrays, query_chunk):
        queries, *pairs = arrays
        filled = [block._replace(keys=k, values=v) for block, (k, v) in zip(blocks, pairs, strict=True)]
        return jnp.sum(probe * attend(queries, order, tuple(filled), query_chunk=query_chunk).values)

    # A tuple of blocks will do.
    arrays = (queries, *((block.keys, block.values) for block in blocks))
    whole, parts = differentiate(arrays, query_chunk=256), differentiate(arrays, query_chunk=2)
    assert all(np.abs(gradient).max() > 0.1 for gradient in jax.tree.leaves(whole))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), parts, whole)


@pytest.mark.parametrize("causal", [False, True])
def test_no_map_is_held_forward_or_backward(causal):
    length, chunk = 512, 32
    order = np.broadcast_to(np.arange(length), (1, 1, length))
    shared_order = np.zeros((1, length), int)

    def loss(queries, shared, own):
        blocks = [
            KeyBlock(shared, shared, shared_order, shared_order == 0),
            KeyBlock(own, own, order, order >= 0),
        ]
        return attend(queries, order, blocks, query_chunk=chunk, causal=causal).values.sum()

    inputs = [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((1, 1, length, N, H), (1, K, length, H), (1, K, 1, length, H))
    ]
    map_bytes = 4 * N * length * 2 * length
    for function in (loss, jax.grad(loss, argnums=(0, 1, 2))):
        memory = jax.jit(function).lower(*inputs).compile().memory_analysis()
        assert memory.temp_size_in_bytes < map_bytes / 2


def test_a_query_that_sees_nothing_is_finite(branches):
    queries, order, (shared, _) = branches
    blind = shared._replace(valid=np.zeros((B, S), bool))

    def loss(queries):
        return attend(queries, order, [blind]).values.sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(queries)
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, 0.0)


def test_bfloat16_is_summed_in_float32():
    # A bfloat16 sum of ones stops at 256.
    ones = np.ones((1, 1, 512, H), jnp.bfloat16)
    order = np.zeros((1, 512), int)
    block = KeyBlock(ones, ones, order, order == 0, regions=np.ones((1, 512, 1), np.float32))
    query, weight = np.ones((1, 1, 1, 1, H), jnp.bfloat16), np.ones((1, 1, 1), np.float32)
    seen = run(query, np.zeros((1, 1, 1), int), [block], query_weights=weight)
    assert seen.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(seen.values.astype(np.float32), 1.0)
    np.testing.assert_allclose(seen.mass, 1.0, rtol=1e-6)


def test_regions_without_query_weights_are_refused(branches, regions):
    queries, order, (shared, own) = branches
    with pytest.raises(ValueError, match="pass query_weights"):
        attend(queries, order, [shared._replace(regions=regions), own])


def test_keys_without_places_are_near_to_all(branches):
    """As if each of them stood where the query does: here all queries stand in one place."""
    queries, order, (shared, own) = branches
    places = np.full_like(order, 7)
    here = shared._replace(places=np.full_like(shared.order, 7))
    own = own._replace(places=np.full_like(own.order, 7 + FAR))
    expected = attend(queries, order, [here, own], places=places).values
    np.testing.assert_array_equal(attend(queries, order, [shared, own], places=places).values, expected)
    assert not np.array_equal(attend(queries, order, [shared, own]).values, expected)
    with pytest.raises(ValueError, match="the last block of keys has none"):
        attend(queries, order, [shared, own._replace(places=None)], places=places)
