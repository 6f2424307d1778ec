import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.rewards.normalise import STOP_WORDS, normalise, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  The  Red\tcircle.\n", "red circle"),
        ("“Two” (big) squares!", "two big squares"),
        ("an x-ray of 3.5 cm", "x-ray of 3.5 cm"),
        ("-5", "-5"),
        (".5", ".5"),
        ("50%", "50%"),
        ("$5,", "$5"),
        ("A", "a"),
        ("the", "the"),
        ("ＲＥＤ ﬁsh", "red fish"),  # full-width letters, ligature
        ("Straße", "strasse"),
        ("it's", "it's"),
        ('"red".', "red"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text())
def test_words_are_non_empty_and_free_of_whitespace(text):
    assert all(word and not any(letter.isspace() for letter in word) for word in words(text))


def test_words_of_place_number_and_negation_carry_content():
    assert STOP_WORDS.isdisjoint({"left", "right", "above", "below", "in", "on", "two", "no", "not", "red"})


def test_stop_words_are_in_normal_form():
    assert {normalise(word) for word in STOP_WORDS} == STOP_WORDS
