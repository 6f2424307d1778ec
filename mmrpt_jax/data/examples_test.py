import numpy as np
import pytest

from mmrpt_jax.data.examples import HideRandomSpan, PickCaptions, PickMask, SeeImages
from mmrpt_jax.data.scene_source import png

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def record(*captions):
    return {"id": "r1", "images": [png(IMAGE)], "captions": list(captions)}


SEE = SeeImages(lambda image: image)


def test_images_are_decoded_augmented_and_seen():
    def shift(image, rng):
        return np.roll(image, rng.integers(1, 3), axis=1)

    see = SeeImages(lambda *images: [image[:, :2] for image in images], augment=shift)
    found = see([png(IMAGE), png(IMAGE[::-1])], np.random.default_rng(1))
    rng = np.random.default_rng(1)
    moved = [rng.integers(1, 3), rng.integers(1, 3)]
    # Each image has a draw of its own.
    assert moved[0] != moved[1]
    for view, image, by in zip(found, (IMAGE, IMAGE[::-1]), moved, strict=True):
        np.testing.assert_array_equal(view, image[:, [-by, 1 - by]])
    assert see([], np.random.default_rng(0)) == []


def test_captions_are_drawn_without_repetition():
    rng = np.random.default_rng(0)
    draws = [
        tuple(PickCaptions(SEE, 2).random_map(record("a", "b", "c"), rng)["captions"]) for _ in range(200)
    ]
    assert set(draws) == {(x, y) for x in "abc" for y in "abc" if x != y}


def test_too_few_captions_are_repeated():
    example = PickCaptions(SEE, 3).random_map(record("a"), np.random.default_rng(0))
    assert example["captions"] == ["a", "a", "a"]
    np.testing.assert_array_equal(example["view"], IMAGE)


def test_captions_are_escaped():
    example = PickCaptions(SEE, 1).random_map(record("see <image>"), np.random.default_rng(0))
    assert example["captions"] == ["see < image>"]


def test_a_record_without_captions_is_named():
    with pytest.raises(ValueError, match="'r1' has no captions"):
        PickCaptions(SEE, 1).random_map(record(), np.random.default_rng(0))


def test_any_span_of_words_is_hidden_and_its_answer_restores_the_caption():
    hide, rng = HideRandomSpan(SEE, max_words=2), np.random.default_rng(0)
    examples = [hide.random_map(record("a red dot ."), rng) for _ in range(100)]
    assert {e["masked"].replace("[MASK]", e["answer"]) for e in examples} == {"a red dot ."}
    assert {e["answer"] for e in examples} == {"a", "red", "dot", "a red", "red dot"}


def test_a_caption_without_words_is_hidden_whole():
    example = HideRandomSpan(SEE, max_words=2).random_map(record("!?"), np.random.default_rng(0))
    assert (example["masked"], example["answer"]) == ("[MASK]", "!?")


def test_a_mask_comes_with_its_own_answer():
    masks = {"masked": ["m0", "m1", "m2"], "answer": ["a0", "a1", "a2"], "sentence": ["s0", "s1", "s2"]}
    masks["hidden_patches"] = np.array([], int)
    rng = np.random.default_rng(0)
    pick = PickMask(SEE, None, ("masked", "answer"))
    examples = [pick.random_map(record("c") | masks, rng) for _ in range(60)]
    assert {(e["id"], e["masked"], e["answer"]) for e in examples} == {
        ("r1", f"m{i}", f"a{i}") for i in range(3)
    }
    assert examples[0].keys() == {"id", "view", "masked", "answer"}
    np.testing.assert_array_equal(examples[0]["view"], IMAGE)


def test_hidden_patches_leave_the_view():
    masks = {"masked": ["m"], "hidden_patches": np.array([1, 5])}
    pick = PickMask(SEE, lambda view, hidden: (view.shape, hidden.tolist()), ("masked",))
    view = pick.random_map(record("c") | masks, np.random.default_rng(0))["view"]
    assert view == (IMAGE.shape, [1, 5])


def test_draws_depend_on_the_generator_alone():
    pick = PickCaptions(SEE, 2)
    one, two = (pick.random_map(record(*"abcdef"), np.random.default_rng(7)) for _ in range(2))
    assert one["captions"] == two["captions"]
