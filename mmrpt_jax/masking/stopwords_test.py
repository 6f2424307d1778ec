import pytest

from mmrpt_jax.masking.stopwords import STOP_WORDS, is_content_word, is_word


@pytest.mark.parametrize(
    "word", ["red", "three", "3", "left", "above", "behind", "none", "two-tone", "LEFT", "between", "dog's"]
)
def test_words_that_describe_the_image_are_content(word):
    assert is_content_word(word)


@pytest.mark.parametrize(
    "word", ["the", "There", "IS", "of", "image", "shows", "it’s", "isn't", ".", "...", "["]
)
def test_function_words_and_punctuation_are_not(word):
    assert not is_content_word(word)


def test_stop_words_are_lower_case_words():
    assert all(is_word(word) and word == word.lower() for word in STOP_WORDS)


@pytest.mark.parametrize(
    ("unit", "expected"), [("a", True), ("7", True), ("é", True), ("...", False), ("-", False)]
)
def test_is_word(unit, expected):
    assert is_word(unit) is expected
