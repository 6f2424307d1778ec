"""From rewards to advantages, group by group; the same for answers and for images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mmrpt_jax.objectives import zero_variance_groups
from mmrpt_jax.rewards import RewardFn, RewardTable, is_well_formed, score
from mmrpt_jax.training.processes import ALONE, Share

T = TypeVar("T")

# (rewards [B G K], weights [K], valid=[B G K]) -> [B G], as `objectives.sum_then_normalise`
Advantage = Callable[..., Float[np.ndarray, "B G"]]

# Equal rewards leave this much of an advantage, at most: the mean of eight times 0.3 is not 0.3.
_ROUNDING = 1e-6


class Judgement(NamedTuple):
    """What groups earned.

    Attributes:
        table: rewards, with columns [B G].
        advantages: [B G].
    """

    table: RewardTable
    advantages: Float[np.ndarray, "B G"]

    @property
    def zero_variance(self) -> Bool[np.ndarray, " B"]:
        """Groups whose advantages are all the same: they teach nothing, whatever the spread of their rewards."""
        return np.asarray(
            zero_variance_groups(self.advantages, valid=self.table.scorable, tolerance=_ROUNDING)
        )

    def of(self, groups: Int[np.ndarray, " chosen"]) -> "Judgement":
        """That of some groups."""
        chosen = jax.tree.map(lambda column: column[groups], self)
        return chosen._replace(table=_in_order(chosen.table, self.table.parts))

    def by_group(self) -> dict[str, Float[np.ndarray, "B G"]]:
        """The total and every part of the rewards; NaN where a reward declares a member unscorable."""
        return {"total": self.table.total, **self.table.parts}

    def metrics(self) -> dict[str, float]:
        """Mean of every reward and of the total, and the share of groups that teach nothing."""
        known = {name: part[~np.isnan(part)] for name, part in self.table.parts.items()}
        scored = self.table.total[self.table.scorable]
        return {f"reward/{name}": float(part.mean()) for name, part in known.items() if part.size} | {
            "reward": float(scored.mean()) if scored.size else 0.0,
            "zero_variance_share": float(np.mean(self.zero_variance)),
        }


def telling_groups(judgement: Judgement, keep: int | None) -> Int[np.ndarray, " keep"]:
    """The first `keep` groups in their order, those that teach nothing only if others are too few.

    DAPO (arXiv 2503.14476) draws prompts until a batch is full of groups that teach something. Here a fixed number of
    prompts is drawn, more than are learned from, so that shapes stay fixed and the order of the data stays a function
    of the step. An update costs three times what sampling does, so that candidates are cheap. None keeps all.
    """
    return np.sort(np.argsort(judgement.zero_variance, kind="stable")[:keep])


def take_groups(tree: Any, chosen: Int[np.ndarray, " keep"]) -> Any:
    """Rows `chosen` of every array of a tree; each stays spread over the devices as it was."""

    def take(array: Any) -> Any:
        rows = array[chosen]
        return jax.device_put(rows, array.sharding) if isinstance(array, jax.Array) else rows

    return jax.tree.map(take, tree)


def reward_groups(
    rewards: Mapping[str, tuple[RewardFn, float]],
    *,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    gate: Callable[[str], bool] | None = is_well_formed,
    share: Share = ALONE,
) -> RewardTable:
    """Rewards B·G members; each process those that it has.

    Args:
        rewards: name -> (reward, weight).
        prompts: B of them.
        completions: B·G, group by group.
        columns: further fields of B·G entries.
        gate: as in `rewards.score`.
        share: whose rows of the batch the prompts are.

    Returns:
        Columns of [B G].
    """
    size = len(completions) // len(prompts)
    # A reward may compute with JAX.
    with share.locally():
        earned = score(
            rewards, prompts=per_member(prompts, size), completions=completions, columns=columns, gate=gate
        )
    return jax.tree.map(lambda column: column.reshape(-1, size), earned)


def compare_groups(
    rewards: Mapping[str, tuple[RewardFn, float]],
    advantage: Advantage,
    table: RewardTable,
    *,
    share: Share = ALONE,
) -> Judgement:
    """Compares the members of every group.

    What each process's members earned is made known to all, so that means and spreads are those of the whole batch.

    Args:
        rewards: name -> (reward, weight).
        advantage: compares.
        table: what the members that this process has earned, from `reward_groups`.
        share: whose rows of the batch they are.

    Returns:
        What all groups of the batch earned, those of other processes included.
    """
    known = _in_order(share.gather(table), rewards)
    values = np.stack(list(known.parts.values()), axis=-1)
    weights = np.array([weight for _, weight in rewards.values()], np.float32)
    advantages = advantage(np.nan_to_num(values), weights, valid=~np.isnan(values))
    return Judgement(known, np.asarray(advantages))


def _in_order(table: RewardTable, names: Iterable[str]) -> RewardTable:
    """Trees sort their keys; the order of the rewards is that of their weights."""
    return table._replace(parts={name: table.parts[name] for name in names})


def per_member(values: Sequence[Any], group_size: int) -> list[Any]:
    """Repeats what is known of a prompt for every member of its group."""
    return [value for value in values for _ in range(group_size)]


def in_groups(values: Sequence[T], group_size: int) -> list[list[T]]:
    """What is known of every member, group by group."""
    return [list(values[first : first + group_size]) for first in range(0, len(values), group_size)]
