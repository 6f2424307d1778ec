import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.rewards import RewardTable
from mmrpt_jax.training.judging import (
    Judgement,
    compare_groups,
    in_groups,
    per_member,
    reward_groups,
    take_groups,
    telling_groups,
)

NAN = float("nan")


def judgement_of(totals, scorable=None, **parts):
    """A judgement of these totals, which are their own advantages: what is equal is equal in both."""
    totals = np.array(totals, np.float32)
    scorable = np.ones(totals.shape, bool) if scorable is None else np.array(scorable)
    parts = {name: np.float32(part) for name, part in parts.items()}
    return Judgement(RewardTable(totals, parts, scorable, np.ones(totals.shape, bool)), totals)


VARIED, FLAT = [0.0, 1.0, 1.0], [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("groups", "keep", "chosen"),
    [
        # In their order, whatever their spread; flat ones only where the others are too few, the first of them.
        ([FLAT, VARIED, FLAT, [0, 0, 9], VARIED], 2, [1, 3]),
        ([FLAT, VARIED, FLAT, [0, 0, 9], VARIED], 3, [1, 3, 4]),
        ([FLAT, VARIED, FLAT, [0, 0, 9], VARIED], 4, [0, 1, 3, 4]),
        ([VARIED, FLAT, FLAT, FLAT], 2, [0, 1]),
        ([FLAT, FLAT, FLAT], 1, [0]),
        ([FLAT, VARIED, FLAT], None, [0, 1, 2]),
        ([FLAT, VARIED, FLAT], 9, [0, 1, 2]),
    ],
)
def test_groups_that_tell_something_come_first(groups, keep, chosen):
    assert telling_groups(judgement_of(groups), keep).tolist() == chosen


def test_a_spread_that_the_advantages_mute_tells_nothing():
    muted = judgement_of([VARIED, VARIED])._replace(advantages=np.float32([[0, 0, 0], [-0.6, 0.3, 0.3]]))
    assert muted.zero_variance.tolist() == [True, False]
    # Rounding is no spread.
    rounded = judgement_of([FLAT])._replace(advantages=np.float32([[0, 2e-8, -1e-8]]))
    assert rounded.zero_variance.tolist() == [True]


def test_members_without_a_score_tell_nothing():
    scorable = [[True, True, False], [False, True, True], [False, False, False], [False, True, False]]
    # The others of the second group differ; those of the first do not.
    judgement = judgement_of([[1, 1, 0], [0, 1, 2], [1, 2, 3], [1, 2, 3]], scorable)
    assert judgement.zero_variance.tolist() == [True, False, True, True]
    assert telling_groups(judgement, 1).tolist() == [1]


def test_metrics_by_hand():
    judgement = judgement_of(
        [[1.0, 0.0], [0.5, 0.5]], [[True, True], [True, False]], a=[[1, 0], [NAN, NAN]], b=[[NAN] * 2] * 2
    )
    # A reward that scored nobody is not reported; groups with one score cannot vary.
    assert judgement.metrics() == {"reward/a": 0.5, "reward": 0.5, "zero_variance_share": 0.5}


def test_groups_stay_on_their_devices():
    mesh = make_mesh(4, 2, 1)
    split, whole = batch_sharding(mesh), NamedSharding(mesh, PartitionSpec())
    across = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    rows = np.arange(16 * 4).reshape(16, 4)
    tree = {
        "split": jax.device_put(rows, split),
        "whole": jax.device_put(-rows, whole),
        "across": jax.device_put(2 * rows, across),
        "host": rows + 1,
        "nothing": None,
    }
    chosen = np.array([0, 1, 4, 5, 6, 11, 12, 15])
    taken = take_groups(tree, chosen)
    for name, expected in {"split": rows, "whole": -rows, "across": 2 * rows, "host": rows + 1}.items():
        np.testing.assert_array_equal(taken[name], expected[chosen], err_msg=name)
    assert [taken[name].sharding for name in ("split", "whole", "across")] == [split, whole, across]
    assert {shard.data.shape for shard in taken["split"].addressable_shards} == {(1, 4)}
    assert isinstance(taken["host"], np.ndarray) and taken["nothing"] is None


def test_what_advantages_are_made_of():
    seen = {}

    def advantage(rewards, weights, *, valid):
        seen.update(rewards=rewards.tolist(), weights=weights.tolist(), valid=valid.tolist())
        return rewards[..., 0]

    def length(prompts, completions, **columns):
        return [len(prompt + completion) for prompt, completion in zip(prompts, completions, strict=True)]

    def known(completions, sure, **columns):
        return [0.5 if is_sure else None for is_sure in sure]

    # Not in alphabetical order: the weights' is that of the rewards.
    rewards = {"length": (length, 1.0), "known": (known, -2.0)}
    table = reward_groups(
        rewards,
        prompts=["", "abc"],
        completions=["a", "bb", "", "dddd"],
        columns={"sure": [True, False, False, True]},
        gate=None,
    )
    judgement = compare_groups(rewards, advantage, table)
    assert seen == {
        "rewards": [[[1, 0.5], [2, 0]], [[3, 0], [7, 0.5]]],
        "weights": [1.0, -2.0],
        "valid": [[[True, True], [True, False]], [[True, False], [True, True]]],
    }
    np.testing.assert_array_equal(judgement.advantages, [[1, 2], [3, 7]])
    np.testing.assert_array_equal(judgement.table.total, [[0, 2], [3, 6]])
    assert judgement.table.scorable.all()
    last = judgement.of(np.array([1])).by_group()
    assert list(last) == ["total", "length", "known"]
    np.testing.assert_array_equal(list(last.values()), [[[3, 6]], [[3, 7]], [[NAN, 0.5]]])


def test_what_is_known_of_a_prompt_is_known_of_its_group():
    assert per_member(["a", {"b": 1}], 3) == ["a", "a", "a", {"b": 1}, {"b": 1}, {"b": 1}]
    assert per_member([], 3) == []


def test_members_stand_in_their_groups():
    assert in_groups("abcdef", 3) == [["a", "b", "c"], ["d", "e", "f"]]
    assert in_groups([], 2) == []
