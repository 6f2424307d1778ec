import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.training.fingerprint import fingerprint


def test_sums_by_hand():
    # 1.0 is 0x3F800000 in float32 and 0x3F80 in bfloat16; five times 2^30 is 2^30 modulo 2^32.
    tree = [
        jnp.array([1.0, 0.0]),
        jnp.array([1.0, 1.0], jnp.bfloat16),
        jnp.full(5, 2**30, jnp.int32),
        jnp.array([-1, 2], jnp.int32),
        jnp.array([True, False, True]),
    ]
    assert fingerprint(tree).tolist() == [0x3F800000, 2 * 0x3F80, 2**30, 1, 2]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8])
def test_every_bit_counts(dtype):
    array = np.asarray(jnp.arange(6).astype(dtype))
    before = fingerprint([jnp.asarray(array)])
    for bit in range(8 * array.nbytes):
        data = bytearray(array.tobytes())
        data[bit // 8] ^= 1 << bit % 8
        assert fingerprint([jnp.asarray(np.frombuffer(bytes(data), array.dtype))]) != before


def test_does_not_depend_on_the_devices():
    array = jax.random.normal(jax.random.key(0), (8, 8))
    mesh = make_mesh(2, 4, 1)
    split = [
        jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes))) for axes in ((), ("fsdp", "data"))
    ]
    expected = int(np.asarray(array).view(np.uint32).sum(dtype=np.uint64) % 2**32)
    assert fingerprint(split).tolist() == [expected, expected]
