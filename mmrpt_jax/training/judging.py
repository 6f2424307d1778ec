"""From rewards to advantages, group by group; the same for answers and for images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mmrpt_jax.objectives import zero_variance_groups
from mmrpt_jax.rewards import RewardFn, RewardTable, is_well_formed, score
from mmrpt_jax.training.processes import ALONE, Share

# (rewards [B G K], weights [K], valid=[B G K]) -> [B G], as `objectives.sum_then_normalise`
Advantage = Callable[..., Float[np.ndarray, "B G"]]

# Equal rewards leave this much of an advantage, at most: the mean of eight times 0.3 is not 0.3.
_ROUNDING = 1e-6


class Judgement(NamedTuple):
    """What groups earned.

    Attributes:
        table: rewards of the B·G members, group by group.
        advantages: [B G].
    """

    table: RewardTable
    advantages: Float[np.ndarray, "B G"]

    @property
    def scorable(self) -> Bool[np.ndarray, "B G"]:
        """Whether a reward scored the member at all."""
        return self.table.scorable.reshape(self.advantages.shape)

    @property
    def totals(self) -> Float[np.ndarray, "B G"]:
        """Weighted sums of the rewards."""
        return self.table.total.reshape(self.advantages.shape)

    @property
    def zero_variance(self) -> Bool[np.ndarray, " B"]:
        """Groups whose advantages are all the same: they teach nothing, whatever the spread of their rewards."""
        return np.asarray(zero_variance_groups(self.advantages, valid=self.scorable, tolerance=_ROUNDING))

    def of(self, groups: Int[np.ndarray, " chosen"]) -> "Judgement":
        """That of some groups."""
        table = _by_group(
            self.table,
            self.advantages.shape[1],
            lambda columns: jax.tree.map(lambda column: column[groups], columns),
        )
        return Judgement(table, self.advantages[groups])

    def by_group(self) -> dict[str, Float[np.ndarray, "B G"]]:
        """The total and every part of the rewards, group by group; NaN where a reward declares a member unscorable."""
        parts = {"total": self.table.total, **self.table.parts}
        return {name: values.reshape(self.advantages.shape) for name, values in parts.items()}

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


def judge_groups(
    rewards: Mapping[str, tuple[RewardFn, float]],
    advantage: Advantage,
    *,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    gate: Callable[[str], bool] | None = is_well_formed,
    share: Share = ALONE,
) -> Judgement:
    """Rewards B·G members and compares those of a group.

    Each process rewards the members that it has; what they earned is known to all, so that means and spreads are those
    of the whole batch.

    Args:
        rewards: name -> (reward, weight).
        advantage: compares.
        prompts: B of them.
        completions: B·G, group by group.
        columns: further fields of B·G entries.
        gate: as in `rewards.score`.
        share: whose rows of the batch the prompts are.

    Returns:
        What all groups of the batch earned, those of other processes included.
    """
    size = len(completions) // len(prompts)
    # A reward may compute with JAX.
    with share.locally():
        earned = score(
            rewards, prompts=per_member(prompts, size), completions=completions, columns=columns, gate=gate
        )
    table = _by_group(earned, size, share.gather)
    values = np.stack([part.reshape(-1, size) for part in table.parts.values()], axis=-1)
    weights = np.array([weight for _, weight in rewards.values()], np.float32)
    advantages = advantage(np.nan_to_num(values), weights, valid=~np.isnan(values))
    return Judgement(table, np.asarray(advantages))


def _by_group(table: RewardTable, size: int, change: Callable[[Any], Any]) -> RewardTable:
    """What `change` makes of a table whose columns are [B G]."""
    grouped = jax.tree.map(lambda column: column.reshape(-1, size), table)
    changed: RewardTable = jax.tree.map(
        lambda column: column.reshape(-1), jax.tree.map(np.asarray, change(grouped))
    )
    # Trees sort their keys; the order of the rewards is that of their weights.
    return changed._replace(parts={name: changed.parts[name] for name in table.parts})


def per_member(values: Sequence[Any], group_size: int) -> list[Any]:
    """Repeats what is known of a prompt for every member of its group."""
    return [value for value in values for _ in range(group_size)]
