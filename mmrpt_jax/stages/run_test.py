import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.completion import clear, is_complete, mark_complete, read_summary
from mmrpt_jax.stages.run import DRAWING_STREAMS, STREAMS, Run, batches, side_by_side


def test_a_stage_is_complete_when_its_summary_is_there(tmp_path):
    directory = tmp_path / "new" / "stage"
    assert not is_complete(directory)
    mark_complete(directory, {"share": np.float32(0.5), "counts": np.array([1, 2]), "name": "a"})
    assert is_complete(directory)
    assert read_summary(directory) == {"share": 0.5, "counts": [1, 2], "name": "a"}
    assert [path.name for path in directory.iterdir()] == ["complete.json"]
    clear(directory)
    assert not directory.exists()
    clear(directory)


def test_batches_are_a_function_of_the_step():
    source = [{"index": i} for i in range(10)]
    opened = batches(source, None, lambda batch: batch["index"].tolist(), seed=3, batch_size=4)
    whole = list(itertools.islice(opened(0), 7))
    assert list(itertools.islice(opened(3), 4)) == whole[3:]
    # Two epochs and a half, each in its own order.
    read = [index for batch in whole for index in batch][:20]
    assert sorted(read[:10]) == sorted(read[10:]) == list(range(10))
    assert read[:10] != read[10:]
    other = batches(source, None, lambda batch: batch["index"].tolist(), seed=4, batch_size=4)
    assert next(other(0)) != whole[0]


def test_streams_side_by_side_begin_with_the_same_step():
    def counting(name):
        return lambda step: (f"{name}{n}" for n in itertools.count(step))

    opened = side_by_side({"a": counting("x"), "b": counting("y")})
    assert list(itertools.islice(opened(0), 2)) == [{"a": "x0", "b": "y0"}, {"a": "x1", "b": "y1"}]
    assert next(opened(5)) == {"a": "x5", "b": "y5"}
    # Two readers do not disturb each other.
    one, two = opened(0), opened(0)
    next(one)
    assert (next(one), next(two)) == ({"a": "x1", "b": "y1"}, {"a": "x0", "b": "y0"})


def test_keys_and_placement(tmp_path, tiny_model, tiny_processor):
    run = Run(ConfigDict({"seed": 5}), tmp_path, tiny_processor, tiny_model, None, make_mesh(2, 4, 1))
    # 0xE40C292C is the published 32-bit FNV-1a hash of "a".
    expected = jax.random.fold_in(jax.random.key(5), 0xE40C292C >> 1)
    assert jax.random.key_data(run.key("a")).tolist() == jax.random.key_data(expected).tolist()
    assert jax.random.key_data(run.key("b")).tolist() != jax.random.key_data(expected).tolist()
    placed = run.whole.place({"x": np.arange(16.0).reshape(8, 2)})["x"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 2)}


def test_no_two_data_orders_share_a_seed():
    runs = [Run(ConfigDict({"seed": seed}), None, None, None, None, None) for seed in range(4)]
    streams = (*STREAMS, *DRAWING_STREAMS)
    seeds = [run.data_seed(stream) for run in runs for stream in streams]
    assert len(set(seeds)) == 4 * len(streams)
    with pytest.raises(ValueError, match="not in tuple"):
        runs[0].data_seed("unknown")
