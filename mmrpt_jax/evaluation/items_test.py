import io

import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.evaluation.items import record_fill_item, scene_cloze_items, scene_fill_items
from mmrpt_jax.scenes import COLORS, KINDS, WORLDS, describe, render, sample_scene, split_seed

FILL = {"split": "test", "stream": 3, "count": 30}


@pytest.mark.parametrize("world", ["biased", "held_out"])
def test_fill_items_hide_one_attribute_of_a_true_caption(world):
    items, seed = scene_fill_items(world, **FILL), split_seed("test", 3)
    scenes = (sample_scene(WORLDS[world], seed, index) for index in range(60))
    captions = {describe(scene, seed, index).text: scene for index, scene in enumerate(scenes)}
    for item in items:
        assert item.masked.count("[MASK]") == 1
        # What is hidden makes the caption whole again, and the image is of that caption's scene.
        scene = captions[item.masked.replace("[MASK]", item.answer)]
        np.testing.assert_array_equal(item.images, [render(scene)])
    assert len({item.kind for item in items}) > 2


def test_fill_items_may_show_the_left_context_only():
    whole, left = (scene_fill_items("biased", **FILL, context=c) for c in ("bidirectional", "left_only"))
    for both, one in zip(whole, left, strict=True):
        assert one.masked.endswith("[MASK]")
        assert both.masked.startswith(one.masked)
        assert one.answer == both.answer


def test_cloze_items_go_round_the_kinds():
    items = scene_cloze_items("biased", split="test", stream=0, count=25)
    assert [item.kind for item in items] == list(KINDS) * 5
    for item in items:
        assert item.answer in item.candidates
        assert item.cloze.count("[MASK]") == 1
        assert item.question.endswith("?")
        assert item.bias_answer is None or (item.kind == "color" and item.bias_answer in COLORS)
    assert any(item.bias_answer is not None for item in items)


def test_items_are_the_same_every_time_and_differ_between_streams():
    def texts(stream):
        return [item.masked for item in scene_fill_items("biased", split="test", stream=stream, count=8)]

    assert texts(0) == texts(0) != texts(1)


def record_of(*captions):
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(file, "PNG")
    return {"id": "a", "images": [file.getvalue()], "captions": list(captions)}


def hide(record, index=0, **options):
    return record_fill_item(record, seed=0, index=index, **options)


def test_a_record_hides_one_content_word():
    record = record_of("There is a tall <image> tower of the old town.")
    items = [hide(record, index) for index in range(20)]
    assert {item.answer for item in items} == {"tall", "tower", "old", "town"}
    for item in items:
        # The placeholder in the caption was escaped.
        assert item.masked.replace("[MASK]", item.answer) == "There is a tall < image> tower of the old town."
        assert item.kind == "word"
        np.testing.assert_array_equal(item.images, np.full((1, 20, 40, 3), (255, 0, 0)))
    left = hide(record, 1, context="left_only")
    assert items[1].masked.startswith(left.masked) and left.masked.endswith("[MASK]")


@pytest.mark.parametrize(
    "record",
    [record_of(), record_of("it is what it is ."), record_of(""), record_of("an old tower") | {"images": []}],
)
def test_a_record_with_nothing_to_hide_is_no_item(record):
    assert hide(record) is None
