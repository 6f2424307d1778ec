import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.rewards.base import RewardError
from mmrpt_jax.rewards.compose import score
from mmrpt_jax.rewards.exact import exact_match

GOOD = "<think>t</think><answer>red</answer>"
WRONG = "<think>t</think><answer>blue</answer>"
BAD = "red"


def constant(*values):
    """A reward that looks its values up by completion index, so it also works on one example at a time."""
    return lambda prompts, completions, index, **columns: [values[i] for i in index]


def run(rewards, completions=(GOOD, WRONG, BAD), **options):
    columns = {"answer": ["red"] * len(completions), "index": list(range(len(completions)))}
    return score(
        rewards, prompts=["p"] * len(completions), completions=list(completions), columns=columns, **options
    )


def test_weighted_sum_and_parts():
    table = run({"exact": (exact_match, 2.0), "bonus": (constant(0.5, 0.25, 0.0), 1.0)})
    np.testing.assert_allclose(table.total, [2.5, 0.25, 0.0])
    np.testing.assert_allclose(table.parts["exact"], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(table.parts["bonus"], [0.5, 0.25, 0.0])
    assert table.scorable.all()
    assert table.passed.tolist() == [True, True, False]
    assert table.total.dtype == table.parts["exact"].dtype == np.float32


def test_the_gate_takes_earnings_and_leaves_penalties():
    rewards = {"reward": (constant(1.0, 1.0, 1.0), 1.0), "penalty": (constant(-0.5, -0.5, -0.5), 1.0)}
    np.testing.assert_allclose(run(rewards).total, [0.5, 0.5, -0.5])
    np.testing.assert_allclose(run(rewards, gate=None).total, [0.5, 0.5, 0.5])


def test_the_gate_looks_at_the_sign_after_weighting():
    rewards = {"cost": (constant(1.0, 1.0, 1.0), -1.0), "merit": (constant(-1.0, -1.0, -1.0), -1.0)}
    table = run(rewards)
    np.testing.assert_allclose(table.parts["cost"], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(table.parts["merit"], [-1.0, -1.0, 0.0])
    np.testing.assert_allclose(table.total, [0.0, 0.0, -1.0])


def test_a_custom_gate():
    table = run({"reward": (constant(1.0, 1.0, 1.0), 1.0)}, gate=lambda completion: "blue" in completion)
    np.testing.assert_allclose(table.total, [0.0, 1.0, 0.0])


def test_none_leaves_the_sum_and_all_none_is_unscorable():
    table = run({"a": (constant(1.0, None, None), 1.0), "b": (constant(2.0, 2.0, None), 1.0)})
    np.testing.assert_allclose(table.total, [3.0, 2.0, 0.0])
    np.testing.assert_allclose(table.parts["a"], [1.0, np.nan, np.nan])
    assert table.scorable.tolist() == [True, True, False]


def test_zero_weight_reports_without_paying():
    table = run({"exact": (exact_match, 0.0)})
    np.testing.assert_allclose(table.total, [0.0, 0.0, 0.0])
    np.testing.assert_allclose(table.parts["exact"], [1.0, 0.0, 0.0])


def test_functions_written_for_trl_run_unchanged():
    def only_completions(completions, **kwargs):
        return [float(len(completion)) for completion in completions]

    def with_ids(prompts, completions, completion_ids, **kwargs):
        return [float(sum(ids)) for ids in completion_ids]

    def with_named_column(completions, answer, **kwargs):
        return [float(truth in completion) for completion, truth in zip(completions, answer, strict=True)]

    def for_another_task(prompts, completions, **kwargs):
        return [None] * len(completions)

    rewards = {
        f.__name__: (f, 1.0) for f in (only_completions, with_ids, with_named_column, for_another_task)
    }
    columns = {"completion_ids": [[1, 2], [3]], "answer": ["a", "z"]}
    table = score(rewards, prompts=["p", "q"], completions=["aa", "bbb"], columns=columns, gate=None)
    np.testing.assert_allclose(table.total, [2 + 3 + 1, 3 + 3 + 0])
    assert table.scorable.all()
    assert np.isnan(table.parts["for_another_task"]).all()


@pytest.mark.parametrize("values", [(True, False, 1), np.array([1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 1.0])])
def test_numbers_of_other_kinds_are_taken(values):
    table = run({"r": (lambda **batch: values, 1.0)}, gate=None)
    np.testing.assert_allclose(table.total, [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (0.5, "returned float"),
        (None, "returned NoneType"),
        ("abc", "returned str"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, "returned dict"),
        ([1.0, 1.0], "returned 2 values for 3 completions"),
    ],
)
def test_wrong_shape(returned, problem):
    with pytest.raises(RewardError, match=f"reward 'broken' {problem}"):
        run({"broken": (lambda **batch: returned, 1.0)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, "1.0", [1.0], np.ones(2)])
def test_a_value_that_is_no_finite_number_names_reward_and_example(value):
    with pytest.raises(RewardError, match=r"'broken' returned .* on example 1, completion .*blue") as caught:
        run({"fine": (exact_match, 1.0), "broken": (constant(1.0, value, None), 1.0)})
    assert (caught.value.reward, caught.value.index) == ("broken", 1)


def test_an_exception_names_reward_and_example():
    def broken(completions, **columns):
        return [1.0 / (completion != BAD) for completion in completions]

    with pytest.raises(RewardError, match=r"'broken' raised ZeroDivisionError: .* on example 2") as caught:
        run({"broken": (broken, 1.0)})
    assert caught.value.index == 2
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_of_the_batch_as_a_whole_blames_no_example():
    def needs_one(completions, **columns):
        (_only,) = completions
        return [1.0]

    with pytest.raises(RewardError, match="raised ValueError: too many values") as caught:
        run({"needs_one": (needs_one, 1.0)})
    assert caught.value.index is None


def test_a_missing_column_is_named():
    with pytest.raises(RewardError, match=r"'exact' raised TypeError.*'answer'"):
        score({"exact": (exact_match, 1.0)}, prompts=["p"], completions=[GOOD], columns={})


def test_columns_must_be_aligned():
    with pytest.raises(ValueError, match="column 'answer' has 1 entries for 2 completions"):
        score({}, prompts=["p"] * 2, completions=[GOOD] * 2, columns={"answer": ["red"]})
    with pytest.raises(ValueError, match="column 'prompts' has 1 entries for 2 completions"):
        score({}, prompts=["p"], completions=[GOOD] * 2, columns={})


def test_empty_batch():
    table = score({"exact": (exact_match, 1.0)}, prompts=[], completions=[], columns={"answer": []})
    assert table.total.shape == table.scorable.shape == table.passed.shape == (0,)


def test_a_reward_cannot_change_what_the_next_one_sees():
    def vandal(completions, **columns):
        rewards = [0.0] * len(completions)
        completions.clear()
        return rewards

    table = run({"vandal": (vandal, 1.0), "exact": (exact_match, 1.0)})
    np.testing.assert_allclose(table.total, [1.0, 0.0, 0.0])
