import numpy as np
import pytest

from mmrpt_jax.data.prompts import TooLongError, Wording, bucket, completion, encode_branches, encode_prompts
from mmrpt_jax.data.tokenizer import EOS, IMAGE, MASK, train_tokenizer
from mmrpt_jax.rewards import parse_completion

CORPUS = ["fill in the blank : describe the image : the red circle is left of the blue square ."] * 20
TOKENIZER = train_tokenizer(CORPUS, vocab_size=340)


def test_bucket_is_the_smallest_that_holds():
    assert [bucket(n, (16, 4, 8), "x") for n in (0, 4, 5, 8, 16)] == [4, 4, 8, 8, 16]
    with pytest.raises(TooLongError, match="a prompt takes 17 tokens, more than the largest length 16"):
        bucket(17, (16, 4, 8), "a prompt")


def test_an_image_takes_as_many_slots_as_it_has_tokens():
    texts = [Wording().caption, Wording().fill_prompt(f"the {MASK} circle")]
    prompt = encode_prompts(TOKENIZER, texts, image_tokens=5, lengths=(8, 32))
    assert prompt.ids.shape == prompt.valid.shape == prompt.image_slots.shape == (2, 32)
    for row, text in enumerate(texts):
        plain = TOKENIZER.encode(text).ids
        assert prompt.ids[row, : len(plain) + 4].tolist() == [TOKENIZER.image_id] * 5 + list(plain[1:])
        np.testing.assert_array_equal(prompt.valid[row], np.arange(32) < len(plain) + 4)
        np.testing.assert_array_equal(prompt.image_slots[row], np.arange(32) < 5)
        np.testing.assert_array_equal(prompt.ids[row, ~prompt.valid[row]], TOKENIZER.pad_id)


def test_images_stand_where_their_placeholders_do():
    text = f"the{IMAGE}{IMAGE} circle{IMAGE}"
    prompt = encode_prompts(TOKENIZER, [text], image_tokens=2, images=3, lengths=(12,))
    np.testing.assert_array_equal(prompt.image_slots[0, :9], [0, 1, 1, 1, 1, 0, 1, 1, 0])


@pytest.mark.parametrize("text", ["no image", f"{IMAGE} and {IMAGE}"])
def test_prompts_whose_images_do_not_match_are_refused(text):
    with pytest.raises(ValueError, match=r"prompt 1 has (0|8) image tokens where its images give 4: '"):
        encode_prompts(TOKENIZER, [f"{IMAGE} one", text], image_tokens=4, lengths=(64,))


def test_nothing_is_ever_cut():
    with pytest.raises(TooLongError, match="a prompt takes"):
        encode_prompts(TOKENIZER, [Wording().caption], image_tokens=16, lengths=(8, 16))
    with pytest.raises(TooLongError, match="a branch takes"):
        encode_branches(TOKENIZER, [["the red circle is left of the blue square"]], lengths=(4,))


def test_branches_keep_their_groups_and_their_end():
    groups = [["the circle", f"red{EOS}"], [f"the red circle{EOS}", ""]]
    branches = encode_branches(TOKENIZER, groups, lengths=(2, 6))
    assert branches.ids.shape == (2, 2, 6)
    for g, group in enumerate(groups):
        for i, text in enumerate(group):
            assert tuple(branches.ids[g, i][branches.valid[g, i]]) == TOKENIZER.encode(text).ids
    np.testing.assert_array_equal(branches.valid.sum(-1), [[2, 2], [4, 0]])
    assert branches.ids[0, 1, 1] == TOKENIZER.eos_id


def test_groups_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"groups must be of one size, got \[1, 2, 3\]"):
        encode_branches(TOKENIZER, [["a", "b"], ["c"], ["d", "e", "f"]], lengths=(8,))


def test_an_end_token_equal_to_padding_would_still_be_valid():
    """Masks come from lengths, not from ids."""
    branches = encode_branches(TOKENIZER, [["the<pad>"]], lengths=(4,))
    np.testing.assert_array_equal(branches.valid, [[[True, True, False, False]]])


@pytest.mark.parametrize(
    ("images", "caption", "fill", "question"),
    [
        (0, "about :", "the blank : <x>", "see and say : <x>"),
        (1, f"{IMAGE} about :", f"the blank :\n{IMAGE} <x>", f"see {IMAGE} and say : <x>"),
        (
            3,
            f"{IMAGE}{IMAGE}{IMAGE} about :",
            f"the blank :\n{IMAGE}{IMAGE}{IMAGE} <x>",
            f"see {IMAGE}{IMAGE}{IMAGE} and say : <x>",
        ),
    ],
)
def test_a_prompt_has_a_placeholder_for_every_image(images, caption, fill, question):
    wording = Wording(
        caption=f"{IMAGE} about :",
        fill=f"the blank :\n{IMAGE} {{text}}",
        question=f"see {IMAGE} and say : {{text}}",
    )
    assert wording.caption_prompt(images) == caption
    assert wording.fill_prompt("<x>", images) == fill
    assert wording.question_prompt("<x>", images) == question


def test_a_prompt_of_nothing_is_refused():
    prompt = Wording(caption=IMAGE).caption_prompt(0)
    with pytest.raises(
        ValueError, match="prompt 1 has no token: where there is no image, its wording needs words"
    ):
        encode_prompts(TOKENIZER, ["the circle", prompt], image_tokens=4, images=[0, 0], lengths=(8,))


def test_masked_captions_may_hold_braces():
    assert Wording().fill_prompt("a {red} {0} circle").endswith("a {red} {0} circle")


def test_completions_are_what_the_rewards_parse():
    text = TOKENIZER.decode(TOKENIZER.encode(completion("the red circle", "red")).ids)
    parsed = parse_completion(text)
    assert parsed.well_formed
    assert (parsed.think.strip(), parsed.answer.strip()) == ("the red circle", "red")
    assert completion("", "x").endswith(EOS)
