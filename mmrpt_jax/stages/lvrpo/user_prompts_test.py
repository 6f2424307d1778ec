import pytest

from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.tokenizer import train_tokenizer
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.lvrpo.user_prompts import safe_prompts, unknown_words, unknown_words_warning


@pytest.fixture(scope="module")
def tokenizer():
    """A token for each of "draw the image : a red circle blue square .", and bytes."""
    return train_tokenizer([Wording().drawing_prompt("a red circle and a blue square .")] * 4, vocab_size=400)


def test_known_words_are_single_tokens(tokenizer):
    assert unknown_words(tokenizer, "a blue circle and a red square .") == []
    assert unknown_words(tokenizer, "a Blue circle on bench.") == ["Blue", "on", "bench"]


def test_punctuation_makes_no_word_unknown(tokenizer):
    assert unknown_words(tokenizer, 'a red circle, a "blue" (square) - and a circle!') == []
    assert unknown_words(tokenizer, "a red-benched circle") == ["benched"]


def test_the_warning_counts_words_and_prompts(tokenizer):
    assert unknown_words_warning(tokenizer, ["a red square .", "a blue circle"]) is None
    assert unknown_words_warning(tokenizer, ["a red bench", "a red square", "bench"]) == (
        "1 word is unknown to the model, in 2 of 3 prompts, and spelt in pieces: bench"
    )
    assert unknown_words_warning(tokenizer, ["bench toaster cow", "cow bird kite zebra"]) == (
        "6 words are unknown to the model, in 2 of 2 prompts, and spelt in pieces: "
        "bench, toaster, cow, bird, kite, …"
    )


def test_prompts_that_fit_are_kept(tokenizer):
    # "draw the image :" is four tokens.
    assert safe_prompts(tokenizer, Wording(), ["a red circle", "a blue square ."], [4, 8]) == [
        "a red circle",
        "a blue square .",
    ]


def test_long_prompts_are_told_of_by_number(tokenizer):
    with pytest.raises(ConfigError, match=r"^prompt 2 is too long, with 9 tokens where .* allows 8: 'a red"):
        safe_prompts(tokenizer, Wording(), ["a red circle", "a red circle and a"], [4, 8])
    with pytest.raises(ConfigError, match=r"^prompt 1 \(and 1 more\) is too long, with 7 tokens .* allows 6"):
        safe_prompts(tokenizer, Wording(), ["a red circle", "a red", "a blue circle"], [6])


def test_special_tokens_are_broken(tokenizer):
    (safe,) = safe_prompts(tokenizer, Wording(), ["a <image> and a [MASK]"], [100])
    assert safe == "a < image> and a [ MASK]"
    assert tokenizer.image_id not in tokenizer.encode(safe).ids
