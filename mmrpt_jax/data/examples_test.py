import numpy as np
import pytest

from mmrpt_jax.data.examples import HideRandomSpan, PickCaptions, PickMask, load_image, stack_images
from mmrpt_jax.data.scene_source import png

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def record(*captions):
    return {"id": "r1", "image": png(IMAGE), "captions": list(captions)}


def test_images_of_the_right_size_are_left_alone():
    np.testing.assert_array_equal(load_image(png(IMAGE), 8, 12), IMAGE)
    half = load_image(png(IMAGE), 4, 6)
    assert half.shape == (4, 6, 3)
    assert half.dtype == np.uint8


def test_captions_are_drawn_without_repetition():
    rng = np.random.default_rng(0)
    draws = [
        tuple(PickCaptions(8, 12, 2).random_map(record("a", "b", "c"), rng)["captions"]) for _ in range(200)
    ]
    assert set(draws) == {(x, y) for x in "abc" for y in "abc" if x != y}


def test_too_few_captions_are_repeated():
    example = PickCaptions(8, 12, 3).random_map(record("a"), np.random.default_rng(0))
    assert example["captions"] == ["a", "a", "a"]
    np.testing.assert_array_equal(example["image"], IMAGE)


def test_captions_are_escaped():
    example = PickCaptions(8, 12, 1).random_map(record("see <image>"), np.random.default_rng(0))
    assert example["captions"] == ["see < image>"]


def test_a_record_without_captions_is_named():
    with pytest.raises(ValueError, match="'r1' has no captions"):
        PickCaptions(8, 12, 1).random_map(record(), np.random.default_rng(0))


def test_any_span_of_words_is_hidden_and_its_answer_restores_the_caption():
    hide, rng = HideRandomSpan(8, 12, max_words=2), np.random.default_rng(0)
    examples = [hide.random_map(record("a red dot ."), rng) for _ in range(100)]
    assert {e["masked"].replace("[MASK]", e["answer"]) for e in examples} == {"a red dot ."}
    assert {e["answer"] for e in examples} == {"a", "red", "dot", "a red", "red dot"}


def test_a_caption_without_words_is_hidden_whole():
    example = HideRandomSpan(8, 12, max_words=2).random_map(record("!?"), np.random.default_rng(0))
    assert (example["masked"], example["answer"]) == ("[MASK]", "!?")


def test_a_mask_comes_with_its_own_answer():
    masks = {"masked": ["m0", "m1", "m2"], "answer": ["a0", "a1", "a2"], "sentence": ["s0", "s1", "s2"]}
    masks["hidden_patches"] = np.array([], int)
    rng = np.random.default_rng(0)
    pick = PickMask(8, 12, 4, ("masked", "answer"))
    examples = [pick.random_map(record("c") | masks, rng) for _ in range(60)]
    assert {(e["id"], e["masked"], e["answer"]) for e in examples} == {
        ("r1", f"m{i}", f"a{i}") for i in range(3)
    }
    assert examples[0].keys() == {"id", "image", "masked", "answer"}
    np.testing.assert_array_equal(examples[0]["image"], IMAGE)


def test_hidden_patches_are_grey():
    masks = {"masked": ["m"], "hidden_patches": np.array([1, 5])}
    image = PickMask(8, 12, 4, ("masked",)).random_map(record("c") | masks, np.random.default_rng(0))["image"]
    expected = IMAGE.copy()
    expected[:4, 4:8] = expected[4:, 8:] = 127
    np.testing.assert_array_equal(image, expected)


def test_draws_depend_on_the_generator_alone():
    pick = PickCaptions(8, 12, 2)
    one, two = (pick.random_map(record(*"abcdef"), np.random.default_rng(7)) for _ in range(2))
    assert one["captions"] == two["captions"]


def test_one_image_per_prompt():
    stacked = stack_images([IMAGE, IMAGE])
    assert stacked.shape == (2, 1, 8, 12, 3)
    np.testing.assert_array_equal(stacked[1, 0], IMAGE)
