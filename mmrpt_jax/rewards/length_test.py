import pytest

from mmrpt_jax.rewards.length import make_length_penalty, make_soft_overlong, soft_overlong_score


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0)],
)
def test_soft_overlong(length, expected):
    assert soft_overlong_score(length, max_tokens=100, buffer_tokens=20) == pytest.approx(expected)


def test_soft_overlong_reads_completion_ids():
    reward = make_soft_overlong(max_tokens=4, buffer_tokens=2)
    rewards = reward(["p"] * 4, ["c"] * 4, completion_ids=[[7], [7] * 2, [7] * 3, [7] * 4])
    assert rewards == [0.0, 0.0, -0.5, -1.0]


def test_length_penalty():
    reward = make_length_penalty(max_tokens=4)
    assert reward(["p"] * 3, ["c"] * 3, completion_ids=[[], [1], [1] * 8]) == [0.0, -0.25, -1.0]


@pytest.mark.parametrize(("max_tokens", "buffer_tokens"), [(10, 0), (10, 11), (0, 0)])
def test_soft_overlong_rejects_an_impossible_buffer(max_tokens, buffer_tokens):
    with pytest.raises(ValueError, match="buffer_tokens"):
        make_soft_overlong(max_tokens=max_tokens, buffer_tokens=buffer_tokens)


def test_length_penalty_rejects_zero_tokens():
    with pytest.raises(ValueError, match="max_tokens"):
        make_length_penalty(max_tokens=0)
