"""Several rewards to one number per completion, with a format gate and errors that name the culprit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmrpt_jax.rewards.base import RewardError, RewardFn
from mmrpt_jax.rewards.deadline import OverdueError
from mmrpt_jax.rewards.format import is_well_formed


class RewardTable(NamedTuple):
    """What completions earned: N of them from `score`, or [B G] in groups.

    Attributes:
        total: weighted sum of the parts; 0 where not `scorable`.
        parts: each reward's gated, unweighted values; NaN where that reward returned None.
        scorable: at least one reward scored the completion. The others belong in no group mean.
        passed: the completion passed the gate.
    """

    total: Float[np.ndarray, "*E"]
    parts: dict[str, Float[np.ndarray, "*E"]]
    scorable: Bool[np.ndarray, "*E"]
    passed: Bool[np.ndarray, "*E"]


def score(
    rewards: Mapping[str, tuple[RewardFn, float]],
    *,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    gate: Callable[[str], bool] | None = is_well_formed,
) -> RewardTable:
    """Computes total_i = Σ_k w_k · r_k(i) over the rewards that scored completion i.

    The gate: a completion that fails it earns nothing, w_k · r_k > 0 becomes 0, but its penalties stand. If
    they were waived too, breaking the format would be the way out of them, and would beat an honest wrong
    answer under a reward that pays −1 for it.

    None takes a reward out of that completion's sum, as in TRL. Unlike there, NaN is an error, not a None.

    Args:
        rewards: name -> (reward, weight). A weight of 0 reports a reward without paying it.
        prompts: N prompts, one per completion.
        completions: N completions.
        columns: further fields of the batch, each of N entries aligned with `completions`.
        gate: which completions may earn; None lets all.

    Raises:
        ValueError: prompts or a column do not have N entries.
        RewardError: a reward raised, did not return in time (see `in_time`), or did not return N finite numbers or
            None; the message names the reward and the first example at fault.
    """
    for name, column in {"prompts": prompts, **columns}.items():
        if len(column) != len(completions):
            raise ValueError(f"column '{name}' has {len(column)} entries for {len(completions)} completions")
    batch = {**columns, "prompts": prompts, "completions": completions}
    passed = np.array([gate is None or gate(completion) for completion in completions], bool)
    scorable = np.zeros(len(completions), bool)
    total = np.zeros(len(completions), np.float32)
    parts: dict[str, np.ndarray] = {}
    for name, (reward, weight) in rewards.items():
        values = _values(name, reward, batch)
        earned_unduly = ~passed & (weight * values > 0)
        parts[name] = np.where(earned_unduly, np.float32(0), values)
        total += np.float32(weight) * np.nan_to_num(parts[name])
        scorable |= ~np.isnan(values)
    return RewardTable(total=total, parts=parts, scorable=scorable, passed=passed)


def _values(name: str, reward: RewardFn, batch: Mapping[str, Sequence[Any]]) -> Float[np.ndarray, " N"]:
    """Calls one reward and checks what it returns; None becomes NaN."""
    completions = batch["completions"]
    try:
        returned = _call(reward, batch, slice(None))
    except OverdueError as error:
        # Not called again to find the example at fault: each could take as long.
        raise RewardError(name, str(error)) from error
    except Exception as error:
        index = _first_that_raises(reward, batch)
        completion = None if index is None else completions[index]
        problem = f"raised {type(error).__name__}: {error}"
        raise RewardError(name, problem, index=index, completion=completion) from error
    if isinstance(returned, str | Mapping) or not hasattr(returned, "__len__"):
        raise RewardError(name, f"returned {type(returned).__name__}, expected a list of floats or None")
    if len(returned) != len(completions):
        raise RewardError(name, f"returned {len(returned)} values for {len(completions)} completions")
    values = np.full(len(completions), np.nan, np.float32)
    for index, value in enumerate(returned):
        if value is not None:
            values[index] = _number(name, value, index, completions[index])
    return values


def _call(reward: RewardFn, batch: Mapping[str, Sequence[Any]], rows: slice) -> Any:
    return reward(**{name: list(column[rows]) for name, column in batch.items()})


def _first_that_raises(reward: RewardFn, batch: Mapping[str, Sequence[Any]]) -> int | None:
    """Finds the first example on which the reward raises when called with it alone, if there is one."""
    for index in range(len(batch["completions"])):
        try:
            _call(reward, batch, slice(index, index + 1))
        except Exception:
            return index
    return None


def _number(name: str, value: Any, index: int, completion: str) -> float:
    """Converts one returned value (a Python number, or a scalar of any array library) to a finite float."""
    try:
        number = None if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or not abs(number) <= float(np.finfo(np.float32).max):
        problem = f"returned {value!r}, expected a finite number or None,"
        raise RewardError(name, problem, index=index, completion=completion)
    return number
