import numpy as np
import pytest

from mmrpt_jax.rewards.base import RewardError
from mmrpt_jax.rewards.compose import score
from mmrpt_jax.rewards.exact import exact_match
from mmrpt_jax.rewards.kinds import TaggedReward, by_task

GOOD = "<think>t</think><answer>red</answer>"
TASK = ["understanding", "generation", "understanding", "generation"]


def brightness(images, **columns):
    return np.array([np.mean(image) / 255 for image in images], np.float32)


IMAGE = TaggedReward("brightness", "rule", ("generation",), brightness)
TEXT = TaggedReward("exact", "rule", ("understanding",), exact_match)
BOTH = TaggedReward(
    "bias", "self", ("understanding", "generation"), lambda **columns: [0.5] * len(columns["task"])
)


def run(*rewards, task=TASK):
    return score(
        {reward.name: (by_task(reward), 2.0) for reward in rewards},
        prompts=["p"] * 4,
        completions=[GOOD, "", "<think>t</think><answer>blue</answer>", ""],
        columns={
            "task": task,
            "answer": ["red", None, "red", None],
            "images": [None, np.full((2, 2, 3), 255, np.uint8), None, np.zeros((2, 2, 3), np.uint8)],
        },
        gate=None,
    )


def test_rewards_score_the_rows_of_their_tasks_and_add_nothing_elsewhere():
    table = run(IMAGE, TEXT)
    np.testing.assert_allclose(table.parts["brightness"], [np.nan, 1.0, np.nan, 0.0])
    np.testing.assert_allclose(table.parts["exact"], [1.0, np.nan, 0.0, np.nan])
    np.testing.assert_allclose(table.total, [2.0, 2.0, 0.0, 0.0])
    assert table.scorable.all()


def test_rows_that_no_reward_applies_to_are_not_scorable():
    table = run(TEXT)
    assert table.scorable.tolist() == [True, False, True, False]
    np.testing.assert_allclose(table.total, [2.0, 0.0, 0.0, 0.0])
    assert not run(IMAGE, task=["understanding"] * 4).scorable.any()


def test_a_reward_of_both_tasks_scores_all():
    np.testing.assert_allclose(run(BOTH).total, [1.0] * 4)


def test_a_wrong_number_of_values_or_an_unknown_task_is_an_error():
    short = TaggedReward("short", "rule", ("generation",), lambda **columns: [1.0])
    with pytest.raises(RewardError, match="'short' returned 1 values for 2 rows"):
        run(short)
    with pytest.raises(RewardError, match=r"names \['editing'\]"):
        run(IMAGE, task=["editing", *TASK[1:]])


@pytest.mark.parametrize(
    ("kind", "tasks", "message"),
    [
        ("judge", ("generation",), "kind 'judge'"),
        ("rule", (), "one or more tasks"),
        ("rule", ("editing",), "one or more tasks"),
    ],
)
def test_tags_are_checked(kind, tasks, message):
    with pytest.raises(ValueError, match=f"'mine'.*{message}"):
        TaggedReward("mine", kind, tasks, brightness)
