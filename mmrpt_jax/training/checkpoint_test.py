import errno
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.training.checkpoint import Checkpointer, DamagedCheckpointError
from mmrpt_jax.training.state import Skipped, TrainState


def state_of(step):
    params = {"a": jnp.arange(16.0).reshape(8, 2) + step, "b": {"c": jnp.full((3,), step, jnp.bfloat16)}}
    count = jnp.asarray(step, jnp.int32)
    return TrainState(count, params, (jnp.asarray(0.1 * step), ()), Skipped(count, count))


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


def big_state(step):
    """Numbers that do not compress, so that they lie in a file of their own."""
    return {"w": jax.random.normal(jax.random.key(step), (200, 500)), "step": jnp.asarray(step)}


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, big_state(step))
    return folder


@pytest.fixture
def folder(two_checkpoints, tmp_path):
    return shutil.copytree(two_checkpoints, tmp_path / "copy")


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def cut_short(folder):
    path = largest_file(folder)
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    path = largest_file(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_the_index(folder):
    (folder / "default" / "manifest.ocdbt").unlink()


def lose_everything(folder):
    shutil.rmtree(folder / "default")


@pytest.mark.parametrize("harm", [cut_short, flip_a_bit, lose_the_index, lose_everything])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(folder, harm):
    harm(folder / "2")
    said = []
    with Checkpointer(folder) as checkpointer:
        with pytest.raises(DamagedCheckpointError, match=f"{folder}/2 is damaged"):
            checkpointer.restore(big_state(0))
        assert_equal(checkpointer.restore_newest_sound(big_state(0), said.append), big_state(1))
        assert len(said) == 1 and said[0].endswith("it is set aside, and training goes on from step 1")
        # Its number is free again.
        checkpointer.save(2, big_state(7))
    with Checkpointer(folder) as checkpointer:
        assert_equal(checkpointer.restore_newest_sound(big_state(0), said.append), big_state(7))
    assert (folder / "2.damaged").is_dir() and len(said) == 1


def test_where_all_are_damaged_the_user_is_asked(folder):
    flip_a_bit(folder / "1")
    cut_short(folder / "2")
    said = []
    refused = pytest.raises(DamagedCheckpointError, match=f"w is not what .*: remove {folder} to begin")
    with Checkpointer(folder) as checkpointer, refused:
        checkpointer.restore_newest_sound(big_state(0), said.append)
    assert [line.partition(" is set aside, ")[2] for line in said] == ["and training goes on from step 1"]
    assert (folder / "1").is_dir()


@pytest.mark.parametrize("error", [MemoryError(), ValueError("RESOURCE_EXHAUSTED: out of memory")])
def test_what_cannot_be_read_now_is_not_damaged(folder, monkeypatch, error):
    with Checkpointer(folder) as checkpointer:

        def fail(*_, **__):
            raise error

        monkeypatch.setattr(checkpointer._manager, "restore", fail)
        with pytest.raises(type(error)) as caught:
            checkpointer.restore_newest_sound(big_state(0), pytest.fail)
        assert caught.value is error and checkpointer.latest == 2


def test_what_is_half_written_is_not_there(folder):
    # As Orbax leaves it when the process is killed during a save.
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    with Checkpointer(folder) as checkpointer:
        assert_equal(checkpointer.restore_newest_sound(big_state(0), pytest.fail), big_state(2))


def test_nan_is_refused_and_not_passed_over(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"deep": {"w": jnp.ones(3)}})
        checkpointer.save(2, {"deep": {"w": jnp.array([1.0, jnp.nan, 1.0])}})
        with pytest.raises(ValueError, match=r"2 holds numbers that are not finite \(deep/w is the first"):
            checkpointer.restore_newest_sound({"deep": {"w": jnp.ones(3)}}, pytest.fail)
        assert checkpointer.latest == 2


@pytest.mark.parametrize(
    "like",
    [
        {"w": jnp.ones((2, 2)), "step": 0},
        {"w": jnp.ones((200, 500))},
        jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), big_state(0)),
    ],
)
def test_a_checkpoint_of_another_model_is_not_taken_for_damaged(folder, like):
    like = jax.tree.map(jnp.asarray, like)
    with Checkpointer(folder) as checkpointer:
        with pytest.raises(ValueError, match="2 is of another model") as caught:
            checkpointer.restore_newest_sound(like, pytest.fail)
        assert not isinstance(caught.value, DamagedCheckpointError)
        assert checkpointer.latest == 2


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a disk here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_leaves_the_checkpoint_before(small_disk):
    def save_what_does_not_fit():
        with Checkpointer(small_disk / "c") as checkpointer:
            checkpointer.save(1, big_state(1))
            checkpointer.save(2, {"w": jax.random.normal(jax.random.key(0), (2000, 500))})

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        save_what_does_not_fit()
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(small_disk / "c")
    with Checkpointer(small_disk / "c") as checkpointer:
        assert_equal(checkpointer.restore_newest_sound(big_state(0), pytest.fail), big_state(1))


def test_saving_does_not_count_as_asking_whether_to_stop(tmp_path, monkeypatch):
    """JAX's preemption service agrees on a number of the calls to come: another's numbers would make it pass unseen."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"w": np.ones(3, np.float32)})
    assert Checkpointer(tmp_path).latest == 1 and asked == []
