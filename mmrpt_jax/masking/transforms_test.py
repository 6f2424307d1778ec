"""The array functions of the room, under the transformations people use them in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmrpt_jax import masking

DEVICES = 8


def _everything(key, scores, valid):
    return {
        "top": masking.top_patch_mask(scores, 0.4, valid=valid),
        "random": masking.random_patch_mask(key, scores.shape, 0.5, valid=valid),
        "unsolved": masking.keep_unsolved(scores, max_blind=0.5),
        "learnable": masking.keep_learnable(scores, low=0.2, high=0.8),
    }


def _shard_map(function):
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(jax.vmap(function), mesh=mesh, in_specs=P("data"), out_specs=P("data"))


@pytest.mark.parametrize(
    "transform",
    [lambda f: jax.jit(jax.vmap(f)), jax.pmap, lambda f: jax.jit(_shard_map(f))],
    ids=["jit_vmap", "pmap", "shard_map"],
)
def test_functions_agree_with_one_image_at_a_time(transform):
    assert jax.device_count() == DEVICES
    rng = np.random.default_rng(0)
    scores, valid = (
        jnp.asarray(rng.random((DEVICES, 7)), jnp.float32),
        jnp.asarray(rng.random((DEVICES, 7)) < 0.8),
    )
    keys = jax.random.split(jax.random.key(0), DEVICES)
    actual = transform(_everything)(keys, scores, valid)
    for i in range(DEVICES):
        expected = _everything(keys[i], scores[i], valid[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), actual, expected)
