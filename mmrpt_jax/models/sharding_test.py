import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.sharding import (
    RULES,
    batch_sharding,
    device_grid,
    make_mesh,
    parameter_shardings,
    prompt_shards,
    split_over_prompts,
)
from mmrpt_jax.models.vlm import VLM
from mmrpt_jax.models.vlm_test import CONFIG, make_batch, random_parameters, score


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def batch():
    """Four times the two prompts, each copy with other images."""
    images, prompt, branches = make_batch()
    images = np.random.default_rng(5).permuted(np.tile(images, (4, 1, 1, 1, 1)), axis=2)
    return images, *jax.tree.map(lambda x: np.tile(x, (4, *[1] * (x.ndim - 1))), (prompt, branches))


@pytest.fixture(scope="module")
def on_one_device(params, batch):
    return score(CONFIG, params, *batch)


def shardings(config, mesh, rules=RULES):
    return parameter_shardings(
        jax.eval_shape(VLM(config).init, jax.random.key(0), *make_batch()), mesh, rules
    )["params"]


def specs(config, mesh, rules=RULES):
    """Partition specs by dotted name."""
    leaves = jax.tree.leaves_with_path(shardings(config, mesh, rules))
    return {".".join(part.key for part in path): leaf.spec for path, leaf in leaves}


@pytest.mark.parametrize("layout", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_results_do_not_depend_on_the_mesh(layout, params, batch, on_one_device):
    mesh = make_mesh(*layout)
    sharded = jax.device_put(params, shardings(CONFIG, mesh))
    shard = sharded["embedding"].addressable_shards[0].data
    assert shard.shape == (CONFIG.vocab_size // layout[2], CONFIG.decoder.width // layout[1])

    found = score(CONFIG, sharded, *jax.device_put(batch, batch_sharding(mesh)))
    assert len(found.logprobs.sharding.device_set) == 8
    valid = batch[2].valid
    np.testing.assert_allclose(found.logprobs[valid], on_one_device.logprobs[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.entropy[valid], on_one_device.entropy[valid], rtol=1e-5, atol=1e-5)


def test_every_parameter_has_its_place(params):
    found = specs(CONFIG, make_mesh(2, 2, 2))
    assert len(found) == len(jax.tree.leaves(params))
    layer, tower = "decoder.layers.", "vision."
    expected = {
        "embedding": ("tensor", "fsdp"),
        layer + "query.kernel": (None, "fsdp", "tensor"),
        layer + "key.kernel": (None, "fsdp", "tensor"),
        layer + "out.kernel": (None, "tensor", "fsdp"),
        layer + "mlp.up.kernel": (None, "fsdp", "tensor"),
        layer + "mlp.down.kernel": (None, "tensor", "fsdp"),
        layer + "mlp_norm.scale": (None, None),
        "decoder.final_norm.scale": (None,),
        tower + "patch_embedding.kernel": (None, "fsdp"),
        tower + "patch_embedding.bias": ("fsdp",),
        tower + "positions": (None, "fsdp"),
        tower + "connector_in.kernel": ("fsdp", "tensor"),
        tower + "connector_in.bias": ("tensor",),
    }
    assert {name: found[name] for name in expected} == {n: PartitionSpec(*s) for n, s in expected.items()}
    # Whatever else there is, only the scales of norms are whole.
    assert all(name.endswith("scale") for name, spec in found.items() if not any(spec))


def test_axes_that_do_not_divide_stay_whole():
    odd = dataclasses.replace(CONFIG, vocab_size=63)
    assert specs(odd, make_mesh(2, 2, 2))["embedding"] == PartitionSpec(None, "fsdp")


def test_the_table_is_an_argument():
    rules = {**RULES, "embed": None, "vocab": "data"}
    assert specs(CONFIG, make_mesh(2, 2, 2), rules)["embedding"] == PartitionSpec("data", None)
    missing = {name: axis for name, axis in RULES.items() if name != "vocab"}
    with pytest.raises(KeyError, match="vocab"):
        specs(CONFIG, make_mesh(), missing)


def test_mesh_takes_what_is_left():
    assert dict(make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(make_mesh(2, -1, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1), "data=3, fsdp=1, tensor=1 does not cover the 8 devices"),
        ((-1, 3, 1), "data=-1, fsdp=3, tensor=1 does not cover the 8 devices"),
        ((-1, 0, 1), "does not cover the 8 devices"),
        ((-1, 16, 1), "does not cover the 8 devices"),
        ((-2, -4, 1), "does not cover the 8 devices"),
        ((-1, -1, 1), "at most one mesh axis may be -1"),
    ],
)
def test_impossible_meshes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(*sizes)


def test_batches_are_split_over_prompts_only():
    assert batch_sharding(make_mesh(2, 2, 2)).shard_shape((8, 3, 5)) == (2, 3, 5)


def test_features_stay_split_over_prompts():
    mesh, x = make_mesh(2, 4, 1), jnp.zeros((8, 3, 16))
    by_features = jax.device_put(x, NamedSharding(mesh, PartitionSpec(None, None, "fsdp")))
    with jax.set_mesh(mesh):
        split = jax.jit(split_over_prompts)(by_features)
        # A batch that does not divide is padded.
        assert jax.jit(split_over_prompts)(x[:3]).shape == (3, 3, 16)
        assert prompt_shards() == 8
    assert {shard.data.shape[0] for shard in split.addressable_shards} == {1}


def test_without_a_mesh_nothing_is_split():
    x = jnp.zeros((8, 4))
    assert split_over_prompts(x) is x
    assert prompt_shards() == 1


@pytest.mark.parametrize("layout", [(1, 8, 1), (2, 2, 2)])
def test_results_do_not_depend_on_where_features_are(layout, params, batch, on_one_device):
    mesh = make_mesh(*layout)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, shardings(CONFIG, mesh))
        found = score(CONFIG, sharded, *jax.device_put(batch, batch_sharding(mesh)))
    valid = batch[2].valid
    np.testing.assert_allclose(found.logprobs[valid], on_one_device.logprobs[valid], rtol=1e-5, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """What a mesh asks of a device."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "fake"

    @property
    def process_index(self):
        return self.id // 2


def test_slices_divide_the_data_axis_and_nothing_else():
    # Numbered across the slices, so that order alone does not give the answer.
    devices = [FakeDevice(number, slice_index=number % 2) for number in range(8)]
    grid = device_grid((4, 2, 1), devices)
    assert grid.shape == (4, 2, 1)
    assert [[device.slice_index for device in row.ravel()] for row in grid] == [
        [0, 0],
        [0, 0],
        [1, 1],
        [1, 1],
    ]
    assert {device.id for device in grid.ravel()} == set(range(8))
    on_tpus = [dataclasses.replace(device, platform="tpu") for device in devices]
    with pytest.raises(ValueError, match="data=1 does not divide into the 2 slices"):
        device_grid((1, 8, 1), on_tpus)


def test_weights_may_be_split_over_nodes_of_gpus():
    devices = [FakeDevice(number, slice_index=number % 2) for number in range(8)]
    assert [device.id for device in device_grid((1, 8, 1), devices).ravel()] == [0, 2, 4, 6, 1, 3, 5, 7]
