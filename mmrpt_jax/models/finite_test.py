import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.finite import not_finite
from mmrpt_jax.models.sharding import make_mesh


def test_names_what_is_not_finite():
    tree = {
        "sound": jnp.arange(4.0),
        "count": jnp.arange(3),
        "deep": {"nan": jnp.array([0.0, jnp.nan]), "infinite": jnp.array(-jnp.inf, jnp.bfloat16)},
    }
    assert sorted(not_finite(tree)) == ["deep/infinite", "deep/nan"]
    assert not_finite({}) == []


@pytest.mark.parametrize("place", [0, 7])
def test_one_number_on_one_of_the_devices_is_enough(place):
    sharding = NamedSharding(make_mesh(1, 8, 1), PartitionSpec("fsdp"))
    array = jax.device_put(jnp.zeros(8).at[place].set(jnp.nan), sharding)
    assert not_finite({"a": array, "b": jax.device_put(jnp.zeros(8), sharding)}) == ["a"]
