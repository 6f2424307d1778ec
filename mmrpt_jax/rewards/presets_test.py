import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.rewards.compose import score
from mmrpt_jax.rewards.kinds import by_task
from mmrpt_jax.rewards.presets import IMAGE_REWARDS, REWARDS, exact_prefix, semantic_visual, weighted
from mmrpt_jax.scenes.clauses import Clause, Clauses


def completion(answer):
    return f"<think>t</think><answer>{answer}</answer>"


def totals(rewards, answers, truth, gains):
    completions = [answer if answer.startswith("<") else completion(answer) for answer in answers]
    columns = {"answer": [truth] * len(answers), "visual_gain": gains}
    return score(rewards, prompts=[""] * len(answers), completions=completions, columns=columns).total


def test_semantic_visual_by_hand():
    answers = ["red circle", "red", "blue square", "<answer>red circle</answer>"]
    # exact + f1 + gain/2 + format; prefix/2 of a half, f1 of 2/3; format only; malformed.
    expected = [1.0 + 0.3 + 0.1 + 0.1, 0.25 + 0.2 + 0.5 + 0.1, 0.1, 0.0]
    got = totals(semantic_visual(), answers, "red circle", [0.2, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_semantic_visual_with_an_encoder():
    rewards = semantic_visual(lambda texts: np.eye(len(texts)))
    got = totals(rewards, ["red", "blue"], "red", [0.0, 0.0])
    np.testing.assert_allclose(got, [1.0 + 0.3 + 0.3 + 0.1, 0.1], rtol=1e-6)


def test_exact_prefix_by_hand():
    got = totals(exact_prefix(), ["red circle", "red", "blue"], "red circle", [0.0] * 3)
    np.testing.assert_allclose(got, [1.1, 0.35, 0.1], rtol=1e-6)


_WORDS = st.lists(st.sampled_from(["red", "circle", "the", "left", "of"]), min_size=1, max_size=4).map(
    " ".join
)


@given(_WORDS, _WORDS, st.floats(0, 1), st.floats(0, 1))
def test_an_exact_answer_beats_every_other(answer, truth, gain, exact_gain):
    rewards = semantic_visual(lambda texts: np.array([[1.0, len(text)] for text in texts]))
    parts = score(
        rewards,
        prompts=[""] * 2,
        completions=[completion(truth), completion(answer)],
        columns={"answer": [truth] * 2, "visual_gain": [exact_gain, gain]},
    )
    if parts.parts["exact_match"][1] == 0.0:
        assert parts.total[0] > parts.total[1]


def test_every_registered_reward_takes_the_batch_and_stays_in_range():
    batch = {
        "prompts": ["p"] * 3,
        "completions": [completion("red"), completion("a a a a"), "x x x x"],
        "answer": ["red", "blue", "red"],
        "visual_gain": [1.0, 0.0, -1.0],
        "completion_ids": [[1], [1, 2], [1]],
        "image": [None] * 3,
    }
    for name, reward in REWARDS.items():
        values = reward(**batch)
        assert len(values) == 3, name
        assert all(-1.0 <= value <= 1.0 for value in values), name


def test_every_registered_reward_of_images_takes_the_batch_and_needs_no_other_model():
    circle = Clauses((Clause("circle"),))
    table = score(
        {name: (by_task(reward), 1.0) for name, reward in IMAGE_REWARDS.items()},
        prompts=["p"] * 2,
        completions=[""] * 2,
        columns={
            "task": ["generation", "understanding"],
            "images": [np.zeros((64, 64, 3), np.uint8), None],
            "clauses": [circle, None],
            "answers": [["yes", "one", "yes"], None],
            "prompt_likelihood": [0.5, None],
            "yes_probability": [0.25, None],
        },
        gate=None,
    )
    expected = {"instruction_strict": 0, "instruction_soft": 0, "validity": 0, "prompt_likelihood": 0.5}
    expected |= {"yes_probability": 0.25, "knowledge": 2 / 3}
    assert {name: part[0] for name, part in table.parts.items()} == pytest.approx(expected)
    assert table.scorable.tolist() == [True, False]
    assert {reward.kind for reward in IMAGE_REWARDS.values()} == {"rule", "self"}


def test_weighted_looks_up_and_suggests():
    def mine(prompts, completions, **columns):
        return [0.0] * len(completions)

    assert weighted({"mine": 0.5, "format": 1.0}, more={"mine": mine}) == {
        "mine": (mine, 0.5),
        "format": (REWARDS["format"], 1.0),
    }
    with pytest.raises(KeyError, match="'exact_mach', did you mean 'exact_match'"):
        weighted({"exact_mach": 1.0})
