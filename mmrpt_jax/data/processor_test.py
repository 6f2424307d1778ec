import numpy as np
import pytest

from mmrpt_jax.data.prompts import TooLongError, Wording, encode_prompts

WIDE = np.random.default_rng(0).integers(0, 256, (8, 32, 3), np.uint8)
TRUE_SIZE = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)


def test_views_of_one_size_are_batched_with_their_prompts(tiny_processor, tiny_tokenizer):
    texts = [Wording().caption, Wording().fill_prompt("a [MASK] circle")]
    views = [tiny_processor.view(TRUE_SIZE), tiny_processor.view(WIDE)]
    images, prompts = tiny_processor.inputs(texts, views)
    assert images.shape == (2, 1, 16, 16, 3)
    np.testing.assert_array_equal(images[0, 0], TRUE_SIZE)
    expected = encode_prompts(tiny_tokenizer, texts, image_tokens=4, lengths=(16, 24))
    for found, by_hand in zip(prompts, expected, strict=True):
        np.testing.assert_array_equal(found, by_hand)


def test_prompts_of_one_batch_differ_in_their_images(tiny_processor):
    texts = ["<image> and <image>", "no image", "one <image>"]
    views = [tiny_processor.view(*images) for images in ((TRUE_SIZE, WIDE), (), (TRUE_SIZE,))]
    assert [tiny_processor.count_images(view) for view in views] == [2, 0, 1]
    images, prompts = tiny_processor.inputs(texts, views)
    assert images.shape == (3, 2, 16, 16, 3)
    np.testing.assert_array_equal(images[[0, 2], 0], [TRUE_SIZE, TRUE_SIZE])
    assert (images[1] == 127).all() and (images[2, 1] == 127).all()
    assert prompts.image_slots.sum(axis=1).tolist() == [8, 0, 4]
    # Where no prompt has an image there is room for one, so that shapes are few.
    assert tiny_processor.inputs(texts[1:2], views[1:2])[0].shape == (1, 1, 16, 16, 3)
    with pytest.raises(ValueError, match="prompt 0 has 4 image tokens where its images give 8"):
        tiny_processor.inputs(["<image>"], [tiny_processor.view(TRUE_SIZE, WIDE)])


def test_prompts_without_images(tiny_processor):
    prompts = tiny_processor.prompts([Wording().caption_prompt(0)], lengths=(9, 12))
    assert prompts.ids.shape[1] in (9, 12)
    assert not prompts.image_slots.any()
    with pytest.raises(ValueError, match="image tokens"):
        tiny_processor.prompts([Wording().caption])


def test_what_fits_is_what_can_be_encoded(tiny_processor):
    for words in range(40):
        for images in ((), (WIDE,), (WIDE, TRUE_SIZE)):
            text = Wording().fill_prompt("circle " * words, len(images))
            try:
                tiny_processor.inputs([text], [tiny_processor.view(*images)])
                encoded = True
            except TooLongError:
                encoded = False
            assert tiny_processor.fits(text, *(image.shape[:2] for image in images)) == encoded
    assert not encoded


def test_hidden_tokens_are_grey_in_their_own_image(tiny_processor):
    view = tiny_processor.view(TRUE_SIZE, TRUE_SIZE)
    expected = np.stack(view)
    # The second patch of the first image, the first of the other.
    expected[0, :8, 8:] = expected[1, :8, :8] = 127
    np.testing.assert_array_equal(tiny_processor.hide(view, np.array([1, 4])), expected)
    assert tiny_processor.hide((), np.array([], int)) == ()


def test_scores_lie_where_their_patches_do(tiny_processor):
    first, second = tiny_processor.heats(np.arange(8.0), (99, 7), (8, 8))
    assert first.tolist() == [[0, 1], [2, 3]] and second.tolist() == [[4, 5], [6, 7]]


def test_a_wording_has_its_image_and_its_text():
    with pytest.raises(
        ValueError, match=r"wording of 'fill' needs 1 <image> and 1 \{text\}, not 'fill \{text\}'"
    ):
        Wording(fill="fill {text}")
    assert Wording(question="{text} <image>").question_prompt("a {text} ?") == "a {text} ? <image>"
