"""What a reward may lean on and which tasks it applies to, declared where everyone can check it.

"Without auxiliary models" is a claim about kinds: a run whose rewards are of the kinds `rule` and `self` makes
it truthfully.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmrpt_jax.rewards.base import RewardFn

KINDS = ("rule", "self", "external")
TASKS = ("understanding", "generation")

Scores = Sequence[float | None] | Float[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True)
class TaggedReward:
    """A reward and what it declares about itself.

    Attributes:
      name: Under which it is reported.
      kind: `rule`, a program that anyone can check; `self`, the policy's own judgement (or that of a frozen copy);
        `external`, another model.
      tasks: Those of `TASKS` that it applies to. Rewards of images apply to generation, of texts to understanding.
      fn: Called by keyword with the columns of the batch, as a `RewardFn`; may return an array. A reward of images
        reads the columns `images` (uint8 `[64, 64, 3]` each) and `clauses` and swallows prompts and completions.
    """

    name: str
    kind: str
    tasks: tuple[str, ...]
    fn: Callable[..., Scores]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Reward '{self.name}' is of unknown kind {self.kind!r}; choose one of {KINDS}.")
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise ValueError(f"Reward '{self.name}' needs one or more tasks of {TASKS}, got {self.tasks}.")


def by_task(reward: TaggedReward) -> RewardFn:
    """The reward for batches of mixed tasks, ready for `compose.score`.

    It reads the column `task` and calls `reward.fn` with the rows of its own tasks only, so that no other row needs
    the columns that it reads. The other rows get None, which says "cannot be scored" (`base.RewardFn`):
    `compose.score` reports NaN there and adds 0 to the total. Where every reward says so, the row is not scorable
    and belongs in no group mean.

    `compose.score`'s default gate asks for the format of texts; batches with images need another, or none.

    Raises:
      ValueError: When the reward runs, if a task is unknown, or the number of values is not that of the rows.
    """

    def masked(
        prompts: list[str], completions: list[str], *, task: list[str], **columns: Any
    ) -> list[float | None]:
        if unknown := sorted(set(task) - set(TASKS)):
            raise ValueError(f"The column 'task' names {unknown}; choose from {TASKS}.")
        rows = [index for index, name in enumerate(task) if name in reward.tasks]
        values: list[float | None] = [None] * len(task)
        if rows:
            batch = {"prompts": prompts, "completions": completions, "task": task, **columns}
            returned = reward.fn(**{name: [column[row] for row in rows] for name, column in batch.items()})
            if len(returned) != len(rows):
                raise ValueError(
                    f"Reward '{reward.name}' returned {len(returned)} values for {len(rows)} rows."
                )
            for row, value in zip(rows, returned, strict=True):
                values[row] = value
        return values

    return masked
