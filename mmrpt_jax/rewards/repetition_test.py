import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.rewards.repetition import make_repetition_penalty, repeated_ngram_share


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d", 2, 0.0),
        ("a b a b", 2, 1 / 3),  # ab ba ab
        ("Red, red. RED!", 1, 2 / 3),
        ("a a a a a", 2, 3 / 4),
        ("a b", 3, 0.0),
        ("", 1, 0.0),
    ],
)
def test_share(text, n, share):
    assert repeated_ngram_share(text, n=n) == pytest.approx(share)


@given(st.lists(st.sampled_from("ab"), max_size=12), st.integers(1, 4))
def test_share_against_counting(letters, n):
    seen, repeated, total = [], 0, 0
    for start in range(len(letters) - n + 1):
        ngram = letters[start : start + n]
        repeated += ngram in seen
        total += 1
        seen.append(ngram)
    assert repeated_ngram_share(" ".join(letters), n=n) == pytest.approx(repeated / max(total, 1))


def test_penalty_is_the_negative_share():
    assert make_repetition_penalty(n=1)([""] * 2, ["a b", "a a"]) == [0.0, -0.5]


def test_n_must_be_positive():
    with pytest.raises(ValueError, match="at least 1"):
        make_repetition_penalty(n=0)
