import json

import numpy as np
import pytest

from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.records import open_records, write_records
from mmrpt_jax.data.scene_source import SceneSource, png
from mmrpt_jax.scenes import WORLDS, describe, render, sample_scene, split_seed

WORLD = next(iter(WORLDS))


def test_records_are_the_scenes_of_the_stream():
    source = SceneSource(WORLD, split="train", stream=3, size=4, captions=2)
    seed = split_seed("train", 3)
    assert len(source) == 4
    for index in range(4):
        record, scene = source[index], sample_scene(WORLDS[WORLD], seed, index)
        np.testing.assert_array_equal(decode_image(*record["images"]), render(scene))
        captions = [describe(scene, seed, index), describe(scene, seed, index + 4)]
        assert record["captions"] == [caption.text for caption in captions]
        needs = [[sentence.needs_image for sentence in caption.sentences] for caption in captions]
        assert json.loads(record["extra"]) == {"needs_image": needs}
        assert record["qa"] == []


def test_a_world_may_be_given_itself():
    by_name, itself = (SceneSource(world, split="train", size=1)[0] for world in (WORLD, WORLDS[WORLD]))
    assert by_name == itself


def test_access_is_random_and_repeatable():
    source = SceneSource(WORLD, split="train", size=5)
    backwards = [source[i] for i in reversed(range(5))]
    assert backwards[::-1] == [source[i] for i in range(5)]
    assert len({record["id"] for record in backwards}) == len({record["group"] for record in backwards}) == 5
    # A smaller source is the beginning of a larger one.
    assert SceneSource(WORLD, split="train", size=2)[1] == source[1]


@pytest.mark.parametrize("other", [{"split": "test"}, {"stream": 1}])
def test_splits_and_streams_share_nothing(other):
    options = {"split": "train", "size": 8} | other
    found, base = SceneSource(WORLD, **options), SceneSource(WORLD, split="train", size=8)
    assert not {r["id"] for r in found} & {r["id"] for r in base}
    assert not {r["images"][0] for r in found} & {r["images"][0] for r in base}


def test_what_there_is_not(tmp_path):
    source = SceneSource(WORLD, split="train", size=2)
    for index in (2, -1):
        with pytest.raises(IndexError):
            source[index]
    with pytest.raises(KeyError, match=f"no world 'mars'; there are {WORLD}"):
        SceneSource("mars", split="train", size=1)


def test_records_can_be_written(tmp_path):
    source = SceneSource(WORLD, split="train", size=3, captions=2)
    write_records(tmp_path / "set", "set", {"train": source})
    assert list(open_records(tmp_path / "set", "train")) == list(source)


def test_png_keeps_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(png(image)), image)
