import numpy as np
import pytest

from mmrpt_jax.rewards.semantic import make_semantic_reward

# Lengths differ on purpose: only directions may count. cos(red, crimson) = 0.8, cos(red, blue) = 0.3.
VECTORS = {
    "red": [2.0, 0.0],
    "crimson": [4.0, 3.0],
    "blue": [3.0, np.sqrt(91.0)],
    "not red": [-1.0, 0.0],
    "void": [0.0, 0.0],
}


def encode(texts):
    return np.array([VECTORS[text] for text in texts])


def completions(*answers):
    return [f"<think>t</think><answer> {answer} </answer>" for answer in answers]


def test_cosine_above_the_floor():
    answers = completions("red", "crimson", "blue", "not red")
    reward = make_semantic_reward(encode, floor=0.4)
    assert reward([""] * 4, answers, answer=["red"] * 4) == pytest.approx([1.0, 2 / 3, 0.0, 0.0])
    reward = make_semantic_reward(encode, floor=0.0)
    assert reward([""] * 4, answers, answer=["red"] * 4) == pytest.approx([1.0, 0.8, 0.3, 0.0])


def test_malformed_and_unscorable():
    reward = make_semantic_reward(encode)
    batch = [*completions("red"), "red", *completions("red")]
    assert reward([""] * 3, batch, answer=["red", "red", None]) == pytest.approx([1.0, 0.0, None])


def test_each_text_is_encoded_once():
    seen = []

    def counting(texts):
        seen.extend(texts)
        return encode(texts)

    make_semantic_reward(counting)([""] * 3, completions("red", "blue", "red"), answer=["red"] * 3)
    assert sorted(seen) == ["blue", "red"]


def test_nothing_to_encode():
    assert make_semantic_reward(encode)([""], ["red"], answer=[None]) == [None]


def test_bad_encoders():
    with pytest.raises(ValueError, match="one row per text"):
        make_semantic_reward(lambda texts: np.zeros(3))([""], completions("red"), answer=["blue"])
    with pytest.raises(ValueError, match="'void' has no direction"):
        make_semantic_reward(encode)([""], completions("void"), answer=["red"])


@pytest.mark.parametrize("floor", [-0.1, 1.0])
def test_floor_range(floor):
    with pytest.raises(ValueError, match="floor"):
        make_semantic_reward(encode, floor=floor)
