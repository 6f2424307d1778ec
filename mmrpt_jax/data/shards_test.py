import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmrpt_jax.data.shards import ShardWriter, read_shard, shard_path, write_info

FEATURES = tfds.features.FeaturesDict({"number": np.int64, "text": tfds.features.Text()})


def write_shard(path, numbers):
    with ShardWriter(path, FEATURES) as shard:
        for number in numbers:
            shard.add({"number": number, "text": f"text {number}"})
    return shard


def test_tfds_reads_shards_that_were_written_apart(tmp_path):
    parts = {("train", 0): range(20), ("train", 1): range(20, 23), ("dev", 0): range(5)}
    sizes = {"train": [], "dev": []}
    for (split, index), numbers in parts.items():
        shard = write_shard(shard_path(tmp_path, "apart", split, index), numbers)
        sizes[split].append((shard.examples, shard.bytes))
    write_info(tmp_path, "apart", FEATURES, sizes)
    source = tfds.builder_from_directory(tmp_path).as_data_source("train")
    assert [example["number"] for example in source] == list(range(23))
    assert tfds.builder_from_directory(tmp_path).as_data_source("dev")[4]["text"] == b"text 4"


def test_a_copy_of_serialised_examples_is_the_same_file(tmp_path):
    write_shard(tmp_path / "one", range(40))
    with ShardWriter(tmp_path / "two", FEATURES) as copy:
        for data in read_shard(tmp_path / "one"):
            copy.add_serialized(data)
    assert copy.examples == 40
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*nowhere/shard"):
        write_shard(tmp_path / "nowhere" / "shard", range(3))
