"""Every array function of the room, under the transformations people use it in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmrpt_jax import dependency

T, S, PATCHES, N, K, H, L, V = 5, 9, 4, 4, 2, 8, 2, 6
DEVICES = 8


def _everything(x):
    """Scores one caption with each function of the room."""
    regions = dependency.sink_regions(x["image"], x["text"], x["sinks"])
    mass = dependency.region_mass(x["queries"], x["keys"], regions, x["mask"], query_chunk=2)
    score = dependency.visual_dependency(x["visual"], x["text_mass"], heads="top_k", top_k=2, query_shift=-1)
    visual, sink = dependency.remove_sinks(x["patch_mass"], x["sinks"])
    kinds = ("quantile", "mean_std", "otsu", "fixed")
    return {
        "region_mass": mass,
        "received_mass": dependency.received_mass(
            x["queries"], x["keys"], x["weights"], x["mask"], query_chunk=2
        ),
        "visual_dependency": score,
        "lift": dependency.lift(score, PATCHES, jnp.arange(1, T + 1)),
        "detect_sinks": dependency.detect_sinks(
            x["patch_mass"].mean(1), threshold=1.2, token_valid=x["valid"]
        ),
        "remove_sinks": (visual, sink),
        "log_likelihood_ratio": dependency.log_likelihood_ratio(x["logits"][0, :, 0], x["logits"][1, :, 0]),
        "kl_divergence": dependency.kl_divergence(x["logits"][0], x["logits"][1]),
        "sampled_kl": dependency.sampled_kl(x["logits"][0, :, 0], x["logits"][1, :, 0]),
        "segment_pool": [
            dependency.segment_pool(score, x["ids"], 3, reduce=reduce, valid=x["valid"])
            for reduce in ("mean", "max")
        ],
        "threshold": [dependency.threshold(score, x["valid"], kind=kind) for kind in kinds],
    }


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    image = np.arange(S) < PATCHES
    return {
        "queries": rng.normal(size=(DEVICES, T, N, H)).astype(np.float32),
        "keys": rng.normal(size=(DEVICES, S, K, H)).astype(np.float32),
        "mask": np.stack([np.arange(S) <= np.arange(T)[:, None] + S - T] * DEVICES),
        "image": np.stack([image] * DEVICES),
        "text": np.stack([~image] * DEVICES),
        "sinks": rng.random((DEVICES, PATCHES)) < 0.4,
        "weights": rng.random((DEVICES, T)).astype(np.float32),
        "visual": rng.random((DEVICES, L, T, N)).astype(np.float32),
        "text_mass": rng.random((DEVICES, L, T, N)).astype(np.float32),
        "patch_mass": rng.random((DEVICES, T, N, PATCHES)).astype(np.float32),
        "valid": rng.random((DEVICES, T)) < 0.8,
        "logits": rng.normal(size=(DEVICES, 2, T, V)).astype(np.float32),
        "ids": rng.integers(-1, 3, size=(DEVICES, T)),
    }


@pytest.fixture(scope="module")
def expected(inputs):
    """One caption at a time, no batch axis."""
    score = jax.jit(_everything)
    each = [score({name: jnp.asarray(x[i]) for name, x in inputs.items()}) for i in range(DEVICES)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def _shard_map(function):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=P("data"), out_specs=P("data"))


@pytest.mark.parametrize(
    "transform",
    [lambda f: jax.jit(jax.vmap(f)), jax.pmap, lambda f: jax.jit(_shard_map(f))],
    ids=["jit_vmap", "pmap", "shard_map"],
)
def test_functions_agree_with_one_caption_at_a_time(transform, inputs, expected):
    assert jax.device_count() == DEVICES
    actual = transform(_everything)(inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), actual, expected)
