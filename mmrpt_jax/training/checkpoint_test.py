import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.training.checkpoint import Checkpointer
from mmrpt_jax.training.state import TrainState


def state_of(step):
    params = {"a": jnp.arange(16.0).reshape(8, 2) + step, "b": {"c": jnp.full((3,), step, jnp.bfloat16)}}
    return TrainState(jnp.asarray(step, jnp.int32), params, (jnp.asarray(0.1 * step), ()))


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_round_trip(tmp_path):
    with Checkpointer(tmp_path / "c") as checkpointer:
        assert checkpointer.latest is None
        checkpointer.save(3, state_of(3))
    with Checkpointer(tmp_path / "c") as checkpointer:
        assert checkpointer.latest == 3
        state = checkpointer.restore(state_of(0))
    assert_equal(state, state_of(3))


def test_the_newest_stay(tmp_path):
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, state_of(step))
    with Checkpointer(tmp_path) as checkpointer:
        assert_equal(checkpointer.restore(state_of(0)), state_of(3))
        assert_equal(checkpointer.restore(state_of(0), step=2), state_of(2))
        with pytest.raises(FileNotFoundError):
            checkpointer.restore(state_of(0), step=1)


def test_nothing_to_restore(tmp_path):
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(FileNotFoundError, match="no complete checkpoint"),
    ):
        checkpointer.restore(state_of(0))


def test_restored_onto_other_devices(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state_of(1))
        mesh = make_mesh(2, 4, 1)
        whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("fsdp"))
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split if x.ndim == 2 else whole),
            state_of(0),
        )
        state = checkpointer.restore(like)
    assert_equal(state, state_of(1))
    assert state.params["a"].sharding == split
    assert state.params["a"].addressable_shards[0].data.shape == (2, 2)
    assert state.params["b"]["c"].sharding == whole
