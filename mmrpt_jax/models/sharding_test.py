import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.initialise import initialise
from mmrpt_jax.models.sharding import RULES, batch_sharding, make_mesh
from mmrpt_jax.models.vlm_test import CONFIG, make_batch

LAYOUTS = [(8, 1, 1), (2, 4, 1), (2, 2, 2)]


@pytest.fixture(scope="module")
def params():
    return initialise(CONFIG, jax.random.key(3))


@pytest.fixture(scope="module")
def batch():
    """Four times the two prompts, each copy with other images."""
    images, prompt, branches = make_batch()
    rng = np.random.default_rng(5)
    images = rng.permuted(np.tile(images, (4, 1, 1, 1, 1)), axis=2)
    return images, *jax.tree.map(lambda x: np.tile(x, (4, *[1] * (x.ndim - 1))), (prompt, branches))


def score(params, *batch):
    return forward(CONFIG, params, *batch)


@pytest.fixture(scope="module")
def on_one_device(params, batch):
    return jax.jit(score)(params, *batch)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_the_mesh(layout, params, batch, on_one_device):
    mesh = make_mesh(*layout)
    sharded = initialise(CONFIG, jax.random.key(3), mesh)
    # Born in shards, with the values that they have without a mesh.
    jax.tree.map(np.testing.assert_array_equal, sharded, params)
    assert sharded["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    shard = sharded["embedding"].addressable_shards[0].data
    assert shard.shape == (CONFIG.vocab_size // layout[2], CONFIG.decoder.width // layout[1])

    found = jax.jit(score)(sharded, *jax.device_put(batch, batch_sharding(mesh)))
    assert len(found.logprobs.sharding.device_set) == 8
    valid = batch[2].valid
    np.testing.assert_allclose(found.logprobs[valid], on_one_device.logprobs[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.entropy[valid], on_one_device.entropy[valid], rtol=1e-5, atol=1e-5)


def specs(config, mesh, rules=RULES):
    """What `initialise` asks for, by dotted name."""
    abstract = jax.eval_shape(lambda: initialise(config, jax.random.key(0)))
    leaves = jax.tree.leaves_with_path(initialise(config, jax.random.key(0), mesh, rules))
    assert len(leaves) == len(jax.tree.leaves(abstract))
    return {".".join(part.key for part in path): leaf.sharding.spec for path, leaf in leaves}


def test_every_parameter_has_its_place():
    found = specs(CONFIG, make_mesh(2, 2, 2))
    layer, tower = "decoder.layers.", "vision."
    expected = {
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
    whole = {name for name, spec in found.items() if not any(spec)}
    assert all(name.endswith("scale") for name in whole)


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
