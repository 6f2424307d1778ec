import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.safetensors_file import StoredTensor
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.weight_table import TRANSPOSE, Weight, patches

# A fused projection of width 4 in two layers, a matrix of one layer, patches of 3 x 2 x 2 numbers, a vocabulary.
TABLE = [
    Weight("layers/query", "h.{layer}.attn.weight", TRANSPOSE, part=(0, 3)),
    Weight("layers/key", "h.{layer}.attn.weight", TRANSPOSE, part=(1, 3)),
    Weight("layers/value", "h.{layer}.attn.weight", TRANSPOSE, part=(2, 3)),
    Weight("layers/norm", "h.{layer}.norm.weight"),
    Weight("merger", "merge.{layer}.weight", TRANSPOSE, layers=(5,)),
    Weight("patches", "proj.weight", patches((3, 2, 2), (1, 2, 0))),
    Weight("embedding", "embed.weight"),
]
SHAPES = {
    "layers": {"query": (2, 4, 8), "key": (2, 4, 8), "value": (2, 4, 8), "norm": (2, 4)},
    "merger": (1, 4, 6),
    "patches": (12, 8),
    "embedding": (16, 4),
}


def is_shape(x):
    return isinstance(x, tuple)


def tree(make):
    return jax.tree.map(make, SHAPES, is_leaf=is_shape)


ABSTRACT = tree(lambda shape: jax.ShapeDtypeStruct(shape, np.float32))


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    shapes = {
        "h.0.attn.weight": (24, 4),
        "h.1.attn.weight": (24, 4),
        "h.0.norm.weight": (4,),
        "h.1.norm.weight": (4,),
        "merge.5.weight": (6, 4),
        "proj.weight": (8, 3, 2, 2),
        "embed.weight": (16, 4),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def expected(tensors):
    """Our tree out of their tensors, put together by hand."""
    fused = np.stack([tensors["h.0.attn.weight"], tensors["h.1.attn.weight"]])
    return {
        "layers": {
            "query": fused[:, :8].swapaxes(1, 2),
            "key": fused[:, 8:16].swapaxes(1, 2),
            "value": fused[:, 16:].swapaxes(1, 2),
            "norm": np.stack([tensors["h.0.norm.weight"], tensors["h.1.norm.weight"]]),
        },
        "merger": tensors["merge.5.weight"].T[None],
        "patches": np.moveaxis(tensors["proj.weight"], (0, 1), (3, 2)).reshape(12, 8),
        "embedding": tensors["embed.weight"],
    }


@pytest.fixture
def directory(tmp_path, tensors):
    """Two shards, layers torn apart."""
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in places if places[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return tmp_path


def test_their_tensors_become_ours(directory, expected):
    found = read_weights(directory, TABLE, ABSTRACT)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (np.float32, jnp.bfloat16),
        (np.float16, jnp.bfloat16),
        (jnp.bfloat16, np.float32),
        (np.float64, np.float16),
    ],
)
def test_numbers_are_cast(stored, wanted, tmp_path, tensors, expected):
    save_file(
        {name: tensor.astype(stored) for name, tensor in tensors.items()}, tmp_path / "model.safetensors"
    )
    found = read_weights(tmp_path, TABLE, ABSTRACT, dtype=wanted)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(wanted)}
    cast = jax.tree.map(lambda x: x.astype(stored).astype(wanted), expected)
    jax.tree.map(np.testing.assert_array_equal, found, cast)


def specs(spec):
    """`spec` for every weight with enough axes that divide, else the whole weight everywhere."""

    def cut(shape):
        axes = spec[-len(shape) :]
        sizes = {"data": 2, "fsdp": 2, "tensor": 2, None: 1}
        return PartitionSpec(*[a if n % sizes[a] == 0 else None for a, n in zip(axes, shape, strict=True)])

    return tree(cut)


@pytest.mark.parametrize(
    "spec",
    [(None, None, None), (None, "fsdp", "tensor"), (None, "tensor", "fsdp"), ("data", None, "tensor")],
    ids=str,
)
def test_every_device_gets_its_shard(spec, directory, expected):
    mesh = make_mesh(2, 2, 2)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(spec))
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), ABSTRACT, places
    )
    found = read_weights(directory, TABLE, abstract)
    jax.tree.map(np.testing.assert_array_equal, found, expected)

    def check(leaf, place, whole):
        assert leaf.sharding == place
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, whole[shard.index])

    jax.tree.map(check, found, places, expected)


def test_a_shard_is_read_once_however_many_devices_hold_it(directory, monkeypatch):
    viewed, view = [], StoredTensor.view
    monkeypatch.setattr(StoredTensor, "view", lambda tensor: viewed.append(tensor.shape) or view(tensor))
    place = NamedSharding(make_mesh(4, 1, 2), PartitionSpec("tensor"))
    embedding = jax.ShapeDtypeStruct((16, 4), np.float32, sharding=place)
    read_weights(directory, TABLE[-1:], {"embedding": embedding}, ignored=["[!e]*"])
    assert viewed == [(16, 4)] * 2


def test_every_misfit_is_named_before_anything_is_read(directory, monkeypatch):
    abstract = {
        "layers": ABSTRACT["layers"] | {"norm": jax.ShapeDtypeStruct((3, 4), np.float32)},
        "patches": jax.ShapeDtypeStruct((12, 6), np.float32),
        "embedding": ABSTRACT["embedding"],
    }
    abstract["layers"]["query"] = abstract["layers"]["key"] = abstract["layers"]["value"]
    monkeypatch.setattr(StoredTensor, "view", None)
    message = f"""{directory} does not fit this model:
  missing h.2.norm.weight (4,)
  unexpected merge.5.weight (6, 4)
  proj.weight is (8, 3, 2, 2), the model wants (6, 3, 2, 2)"""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_weights(directory, TABLE, abstract)


def test_patterns_are_ignored(directory, expected):
    abstract = {key: leaf for key, leaf in ABSTRACT.items() if key != "merger"}
    found = read_weights(directory, TABLE, abstract, ignored=["merge.*.weight", "not.there"])
    jax.tree.map(np.testing.assert_array_equal, found, {key: expected[key] for key in abstract})
    with pytest.raises(ValueError, match=r"unexpected merge\.5\.weight"):
        read_weights(directory, TABLE, abstract, ignored=["merge"])


@pytest.mark.parametrize("kind", [np.int8, jnp.float8_e4m3fn])
def test_quantized_weights_are_refused(kind, tmp_path, tensors):
    save_file(tensors | {"embed.weight": np.zeros((16, 4), kind)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"embed.weight is quantized \((int8|float8_e4m3fn)\)"):
        read_weights(tmp_path, TABLE, ABSTRACT)


def test_two_weights_may_begin_as_one(tmp_path):
    save_file({"mlp": np.arange(3.0)}, tmp_path / "model.safetensors")
    twins = [Weight("seeing", "mlp"), Weight("drawing", "mlp")]
    leaf = jax.ShapeDtypeStruct((3,), np.float32)
    found = read_weights(tmp_path, twins, {"seeing": leaf, "drawing": leaf})
    np.testing.assert_array_equal(found["seeing"], found["drawing"])


def test_names_may_begin_otherwise(tmp_path, tensors, expected):
    renamed = {name.replace("h.", "model.h.", 1): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    found = read_weights(tmp_path, TABLE, ABSTRACT, spellings={"model.h.": "h."})
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_numbers_that_are_not_finite_are_refused(tmp_path, tensors):
    poisoned = tensors["h.1.norm.weight"].copy()
    poisoned[2] = np.nan
    save_file(tensors | {"h.1.norm.weight": poisoned}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"not finite \(layers/norm is the first of 1 arrays\)"):
        read_weights(tmp_path, TABLE, ABSTRACT)
