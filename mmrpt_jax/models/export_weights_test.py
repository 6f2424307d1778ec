import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import safe_open
from safetensors.numpy import load_file

from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.import_weights_test import TABLE, tree
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.weight_table import TRANSPOSE, Weight


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    return tree(lambda shape: jnp.asarray(rng.normal(size=shape), np.float32))


@pytest.fixture(scope="module")
def theirs(params):
    """Their tensors out of our tree, put together by hand."""
    layers = params["layers"]
    fused = [np.concatenate([np.asarray(layers[n][i]).T for n in ("query", "key", "value")]) for i in (0, 1)]
    return {
        "h.0.attn.weight": fused[0],
        "h.1.attn.weight": fused[1],
        "h.0.norm.weight": layers["norm"][0],
        "h.1.norm.weight": layers["norm"][1],
        "merge.5.weight": np.asarray(params["merger"][0]).T,
        "proj.weight": np.einsum("rcko->okrc", np.reshape(params["patches"], (2, 2, 3, 8))),
        "embed.weight": params["embedding"],
    }


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_what_fits_is_one_file(tmp_path, params, theirs):
    write_weights(tmp_path / "out", TABLE, params)
    [path] = (tmp_path / "out").iterdir()
    assert path.name == "model.safetensors"
    check_equal(load_file(path), theirs)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_and_their_index(tmp_path, params, theirs):
    # The fused projections are 24 * 4 * 4 = 384 bytes each, patches too; the embedding 256, the merger 96, norms 16.
    write_weights(tmp_path, TABLE, params, max_shard_bytes=400)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 2 * 384 + 384 + 256 + 96 + 2 * 16}
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    assert {path.name for path in tmp_path.iterdir()} == {*files, "model.safetensors.index.json"}
    stored = {file: load_file(tmp_path / file) for file in files}
    assert all(sum(tensor.nbytes for tensor in shard.values()) <= 400 for shard in stored.values())
    assert {name: file for file in files for name in stored[file]} == index["weight_map"]
    check_equal({name: tensor for shard in stored.values() for name, tensor in shard.items()}, theirs)


@pytest.mark.parametrize("max_shard_bytes", [100, 400, 10**9])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_there_and_back_bit_by_bit(dtype, max_shard_bytes, tmp_path, params):
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    write_weights(tmp_path, TABLE, params, max_shard_bytes=max_shard_bytes)
    found = read_weights(tmp_path, TABLE, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_another_type(tmp_path, params, theirs):
    write_weights(tmp_path, TABLE, params, dtype=jnp.bfloat16, max_shard_bytes=400)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in theirs.values()) // 2
    found = {n: t for file in tmp_path.glob("*.safetensors") for n, t in load_file(file).items()}
    check_equal(found, {name: tensor.astype(jnp.bfloat16) for name, tensor in theirs.items()})


def test_sharded_parameters_are_written_whole(tmp_path, params, theirs):
    place = NamedSharding(make_mesh(1, 2, 4), PartitionSpec("fsdp"))
    sharded = params | {"embedding": jax.device_put(params["embedding"], place)}
    across = NamedSharding(make_mesh(1, 2, 4), PartitionSpec(None, "tensor", "fsdp"))
    sharded["layers"] = params["layers"] | {"query": jax.device_put(params["layers"]["query"], across)}
    write_weights(tmp_path, TABLE, sharded)
    check_equal(load_file(tmp_path / "model.safetensors"), theirs)


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors"])
def test_weights_are_never_written_over(name, tmp_path, params):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="holds weights already"):
        write_weights(tmp_path, TABLE, params)
    assert (tmp_path / name).read_bytes() == b"precious"


def test_two_weights_cannot_be_one(tmp_path):
    twins = [Weight("seeing", "mlp"), Weight("drawing", "mlp")]
    with pytest.raises(ValueError, match="more than one weight to mlp"):
        write_weights(tmp_path / "out", twins, {"seeing": np.zeros(3), "drawing": np.ones(3)})
    assert not (tmp_path / "out").exists()


def test_plain_numpy_is_written_too(tmp_path):
    write_weights(tmp_path, [Weight("a", "b", TRANSPOSE)], {"a": np.arange(6.0).reshape(2, 3)})
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["b"], [[0, 3], [1, 4], [2, 5]])
