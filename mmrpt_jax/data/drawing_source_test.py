import numpy as np
import pytest

from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.scenes import HELD_OUT, TAGS, read, strict


def source_of(world="biased", split="train", size=60):
    return DrawingSource(world, split=split, stream=3, size=size)


def test_pictures_show_what_the_prompts_ask_for():
    for drawing in source_of():
        assert strict(read(drawing["image"]).objects, drawing["prompt"].clauses, exact=True) == 1


def test_all_tags_come_in_equal_numbers():
    tags = [source_of().prompt(index).tag for index in range(60)]
    assert {tag: tags.count(tag) for tag in TAGS} == dict.fromkeys(TAGS, 10)


def test_held_out_compositions_are_asked_for_in_their_world_only():
    def named(world):
        clauses = (c for i in range(60) for c in source_of(world).prompt(i).clauses.include)
        return {(clause.color, clause.shape) for clause in clauses}

    assert not named("biased") & set(HELD_OUT)
    assert named("held_out") <= set(HELD_OUT)


def test_a_drawing_is_a_function_of_its_place():
    one, two = source_of(size=10)[7], source_of(size=50)[7]
    assert one["prompt"] == two["prompt"]
    np.testing.assert_array_equal(one["image"], two["image"])
    with pytest.raises(IndexError):
        source_of(size=10)[10]
    with pytest.raises(KeyError, match="no world 'round'"):
        source_of("round")
