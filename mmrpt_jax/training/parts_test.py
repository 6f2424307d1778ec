import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.training.parts import join_rows, sample_and_reward, split_rows

PARTS = {
    1: [[0, 1, 2, 3, 4, 5, 6, 7]],
    2: [[0, 2, 4, 6], [1, 3, 5, 7]],
    4: [[0, 4], [1, 5], [2, 6], [3, 7]],
}


@pytest.mark.parametrize("parts", PARTS)
def test_every_part_has_its_rows_and_together_they_are_the_batch(parts):
    rows = np.arange(8)
    batch = {"host": rows[:, None] + np.zeros(3), "texts": list("abcdefgh"), "tree": (rows, None)}
    found = split_rows(batch, parts)
    for part, chosen in zip(found, PARTS[parts], strict=True):
        np.testing.assert_array_equal(part["host"], rows[chosen, None] + np.zeros(3))
        assert part["texts"] == [batch["texts"][row] for row in chosen]
        assert part["tree"][0].tolist() == chosen and part["tree"][1] is None
    whole = join_rows(found)
    np.testing.assert_array_equal(whole["host"], batch["host"])
    assert whole["texts"] == batch["texts"] and whole["tree"][0].tolist() == rows.tolist()


def test_rows_stay_on_their_devices():
    sharding = batch_sharding(make_mesh(2, 2, 2))
    rows = jax.device_put(np.arange(24).reshape(8, 3), sharding)
    found = split_rows(rows, 2)
    held = [{shard.device: shard.data for shard in array.addressable_shards} for array in (rows, *found)]
    for device, whole in held[0].items():
        # Two neighbours on each device, one of every part.
        np.testing.assert_array_equal(held[1][device], whole[:1])
        np.testing.assert_array_equal(held[2][device], whole[1:])
    whole = join_rows(found)
    np.testing.assert_array_equal(whole, rows)
    assert [array.sharding for array in (*found, whole)] == [sharding] * 3


def watched(parts):
    """The order in which the parts of a batch are sampled, read and rewarded, and what came of it."""
    happened = []

    def work(name, batch, *given):
        happened.append(f"{name} {batch[0]}")
        return name, batch, *given

    works = [functools.partial(work, name) for name in ("sample", "read", "reward")]
    return happened, sample_and_reward(*works, list("abcd"), jax.random.key(3), parts=parts)


def test_the_next_part_is_on_its_way_before_one_is_rewarded():
    happened, (sampled, earned) = watched(4)
    assert happened == [
        *("sample a", "read a", "sample b", "reward a"),
        *("read b", "sample c", "reward b"),
        *("read c", "sample d", "reward c"),
        *("read d", "reward d"),
    ]
    for letter, drawn, found in zip("abcd", sampled, earned, strict=True):
        assert found == ("reward", [letter], ("read", [letter], drawn))


def test_a_part_alone_has_the_key_and_several_have_their_own():
    key = jax.random.key(3)
    _, ([(_, batch, given)], _) = watched(1)
    assert given == key and batch == list("abcd")
    _, (sampled, _) = watched(4)
    keys = {tuple(jax.random.key_data(given).tolist()) for *_, given in (*sampled, (key,))}
    assert len(keys) == 5


def test_rows_are_sampled_anew_in_every_part():
    """Noise of one part is no noise of another."""

    def sample(batch, key):
        return jax.random.normal(key, batch.shape)

    given = (sample, lambda batch, drawn: drawn, lambda batch, drawn: np.asarray(drawn))
    sampled, earned = sample_and_reward(*given, jnp.zeros((8, 2)), jax.random.key(0), parts=2)
    np.testing.assert_array_equal(join_rows(sampled), join_rows(earned))
    assert len(np.unique(join_rows(earned))) == 16
