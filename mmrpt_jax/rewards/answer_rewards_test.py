"""Exact match, strict prefix and token F1: hand-worked values, and how they relate to one another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.rewards.exact import exact_match, exact_match_score
from mmrpt_jax.rewards.normalise import STOP_WORDS
from mmrpt_jax.rewards.prefix import strict_prefix, strict_prefix_score
from mmrpt_jax.rewards.token_f1 import token_f1, token_f1_score


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "prefix", "f1"),
    [
        ("red circle", "red circle", 1, 0, 1),
        ("The RED circle.", "a red circle", 1, 0, 1),
        ("red", "red circle", 0, 1 / 2, 2 / 3),
        ("red circle left", "red circle left of it", 0, 3 / 5, 3 / 4),
        ("red circle left of", "red circle left of it", 0, 4 / 5, 8 / 9),
        ("circle", "red circle", 0, 0, 2 / 3),
        ("circle red", "red circle", 0, 0, 1),
        ("red circle here", "red circle", 0, 0, 4 / 5),
        ("red", "reddish circle", 0, 0, 0),
        ("red red", "red circle", 0, 0, 1 / 2),
        ("red red red", "red red circle", 0, 0, 2 / 3),
        ("blue square", "red circle", 0, 0, 0),
        ("", "red circle", 0, 0, 0),
        ("...", "red circle", 0, 0, 0),
        ("the", "the red circle", 0, 0, 0),
        ("there is", "there is a red circle", 0, 0, 0),
        ("there is a red", "there is a red circle", 0, 3 / 4, 6 / 7),
        ("it is blue", "it is red", 0, 0, 0),
        ("it is", "it is", 1, 0, 1),
    ],
)
def test_scores(answer, truth, exact, prefix, f1):
    assert exact_match_score(answer, truth) == exact
    assert strict_prefix_score(answer, truth) == pytest.approx(prefix)
    assert token_f1_score(answer, truth) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (exact_match, [1.0, 0.0, 0.0, None]),
        (strict_prefix, [0.0, 0.5, 0.0, None]),
        (token_f1, [1.0, 2 / 3, 0.0, None]),
    ],
)
def test_rewards_read_the_column_answer(reward, expected):
    completions = [f"<think>t</think><answer>{text}</answer>" for text in ("red circle", "red")] + [
        "red circle"
    ] * 2
    answer = ["red circle", "red circle", "red circle", None]
    rewards = reward([""] * 4, completions, answer=answer, image=[None] * 4)
    assert rewards == pytest.approx(expected)


_WORDS = st.lists(st.sampled_from(["red", "Circle", "the", "is", "it", "two", "left", "?"]), max_size=5).map(
    " ".join
)


@given(_WORDS, _WORDS)
def test_bounds_and_dominance(answer, truth):
    exact, prefix, f1 = (
        score(answer, truth) for score in (exact_match_score, strict_prefix_score, token_f1_score)
    )
    assert exact in (0.0, 1.0)
    assert 0.0 <= prefix < 1.0
    assert 0.0 <= f1 <= 1.0
    assert exact == 0.0 or (prefix == 0.0 and f1 == 1.0)
    assert prefix == 0.0 or f1 > 0.0


@given(st.sampled_from(["", " ", "?", "the", "is it", *sorted(STOP_WORDS)]), _WORDS)
def test_empty_and_stop_word_answers_earn_nothing_short_of_exactness(answer, truth):
    assert strict_prefix_score(answer, truth) == 0.0
    assert token_f1_score(answer, truth) == exact_match_score(answer, truth)


@given(_WORDS)
def test_a_longer_prefix_never_earns_less(truth):
    given_words = truth.split()
    scores = [strict_prefix_score(" ".join(given_words[:n]), truth) for n in range(len(given_words))]
    paid = [score for score in scores if score]
    assert paid == sorted(paid)
