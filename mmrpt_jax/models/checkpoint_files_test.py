import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmrpt_jax.models.checkpoint_files import open_checkpoint

ONE, TWO = {"a": np.zeros(2), "b": np.ones(3)}, {"c": np.full(4, 2.0)}
FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
PLACES = {"a": FILES[0], "b": FILES[0], "c": FILES[1]}


def write_shards(directory, places):
    save_file(ONE, directory / FILES[0])
    save_file(TWO, directory / FILES[1])
    index = places if isinstance(places, bytes) else json.dumps({"weight_map": places}).encode()
    (directory / "model.safetensors.index.json").write_bytes(index)


def check_everything_is_there(found):
    assert found.keys() == {"a", "b", "c"}
    for name, expected in (ONE | TWO).items():
        np.testing.assert_array_equal(found[name].view(), expected)


def test_one_file_named_or_found(tmp_path):
    save_file(ONE | TWO, tmp_path / "model.safetensors")
    check_everything_is_there(open_checkpoint(tmp_path))
    check_everything_is_there(open_checkpoint(tmp_path / "model.safetensors"))


def test_shards(tmp_path):
    write_shards(tmp_path, PLACES)
    check_everything_is_there(open_checkpoint(tmp_path))


def test_what_the_index_leaves_out_is_there_all_the_same(tmp_path):
    write_shards(tmp_path, {"a": FILES[0], "c": FILES[1]})
    check_everything_is_there(open_checkpoint(tmp_path))


def test_of_two_with_one_name_the_index_chooses(tmp_path):
    write_shards(tmp_path, PLACES)
    save_file(TWO | {"a": np.full(2, 7.0)}, tmp_path / FILES[1])
    check_everything_is_there(open_checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no JSON object"),
        (b"{}", "has no weight_map"),
        ({"a": 1}, "has no weight_map"),
        ({"a": "gone.safetensors"}, "not in its directory: 'gone.safetensors'"),
        ({"a": "../outside.safetensors"}, "not in its directory: '../outside.safetensors'"),
        ({"a": "folder/inside.safetensors"}, "not in its directory: 'folder/inside.safetensors'"),
        ({"a": "folder"}, "not in its directory: 'folder'"),
        ({"a": ".."}, "not in its directory: '..'"),
        ({"a": ""}, "not in its directory: ''"),
        ({"a": "x" * 10_000}, "not in its directory: 'xxx"),
        ({"a": "\0"}, r"not in its directory: '\x00'"),
        ({"a": FILES[1]}, f"looks for tensors where they are not: 'a' in {FILES[1]}"),
        ({"d": FILES[0]}, f"looks for tensors where they are not: 'd' in {FILES[0]}"),
    ],
)
def test_an_index_that_lies(index, message, tmp_path):
    directory = tmp_path / "inner"
    (directory / "folder").mkdir(parents=True)
    save_file(ONE, tmp_path / "outside.safetensors")
    save_file(ONE, directory / "folder" / "inside.safetensors")
    write_shards(directory, index)
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        open_checkpoint(directory)
    assert str(refusal.value).startswith(str(directory / "model.safetensors.index.json"))


def test_a_damaged_shard_is_named(tmp_path):
    write_shards(tmp_path, PLACES)
    with (tmp_path / FILES[1]).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=f"{FILES[1]} is no sound safetensors file"):
        open_checkpoint(tmp_path)


def test_pickles_are_refused(tmp_path):
    for name in ("pytorch_model.bin", "old.pth", "config.json"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"only as pickles \(old.pth, pytorch_model.bin\)"):
        open_checkpoint(tmp_path)
    save_file(ONE | TWO, tmp_path / "model.safetensors")
    check_everything_is_there(open_checkpoint(tmp_path))


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_no_weights(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        open_checkpoint(tmp_path / name)
