import numpy as np
import pytest

from mmrpt_jax.data.prompts import TooLongError, Wording, encode_prompts, without_images

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


def test_several_images_per_prompt(tiny_processor):
    images, prompts = tiny_processor.inputs(["<image> and <image>"], [tiny_processor.view(TRUE_SIZE, WIDE)])
    assert images.shape == (1, 2, 16, 16, 3)
    assert prompts.image_slots.sum() == 8
    with pytest.raises(ValueError, match="prompt 0 has 4 image tokens where its images give 8"):
        tiny_processor.inputs(["<image>"], [tiny_processor.view(TRUE_SIZE, WIDE)])


def test_prompts_without_images(tiny_processor):
    prompts = tiny_processor.prompts([without_images(Wording().caption)], lengths=(9, 12))
    assert prompts.ids.shape[1] in (9, 12)
    assert not prompts.image_slots.any()
    with pytest.raises(ValueError, match="image tokens"):
        tiny_processor.prompts([Wording().caption])


def test_what_fits_is_what_can_be_encoded(tiny_processor):
    for words in range(40):
        text = Wording().fill_prompt("circle " * words)
        try:
            tiny_processor.inputs([text], [tiny_processor.view(WIDE)])
            encoded = True
        except TooLongError:
            encoded = False
        assert tiny_processor.fits(text, 8, 32) == encoded
    assert not encoded


def test_hidden_tokens_are_grey_in_their_own_image(tiny_processor):
    view = tiny_processor.view(TRUE_SIZE, TRUE_SIZE)
    expected = view.copy()
    # The second patch of the first image, the first of the other.
    expected[0, :8, 8:] = expected[1, :8, :8] = 127
    np.testing.assert_array_equal(tiny_processor.hide(view, np.array([1, 4])), expected)


def test_scores_lie_where_their_patches_do(tiny_processor):
    assert tiny_processor.heat(np.arange(4.0), 99, 7).tolist() == [[0, 1], [2, 3]]


def test_a_wording_has_its_image_and_its_text():
    with pytest.raises(
        ValueError, match=r"wording of 'fill' needs 1 <image> and 1 \{text\}, not 'fill \{text\}'"
    ):
        Wording(fill="fill {text}")
    assert Wording(question="{text} <image>").question_prompt("a {text} ?") == "a {text} ? <image>"
