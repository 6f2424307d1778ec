"""What a reward is: the one signature, and the error that names a broken one."""

from collections.abc import Sequence
from typing import Any, Protocol


class RewardFn(Protocol):
    """A callable that scores N completions, as TRL's `GRPOTrainer` calls its reward functions.

    It is called as `reward(prompts=..., completions=..., **columns)`. A function written for that trainer
    runs unchanged, whether declared as `f(completions, **kwargs)`, as `f(prompts, completions,
    completion_ids, **kwargs)` or with named columns. Prompts and completions are always strings; TRL's
    conversational form (lists of role/content messages) is not used here, and coroutine functions are not
    awaited.

    The name under which a reward is reported is its key in the mapping given to `compose.score`.
    """

    # The loosest declaration there is, so that type checkers accept rewards that name the columns they read.
    def __call__(self, *args: Any, **kwargs: Any) -> Sequence[float | None]:
        """Scores each completion.

        Keyword Args:
            prompts: list of N prompts; the G completions of one prompt repeat it.
            completions: list of N completions as decoded text, without special tokens.
            **columns: every other field of the batch, a list of N entries each, aligned with `completions`:
                `answer` (the true span), `completion_ids` (the sampled token ids), `image`, `visual_gain` and
                whatever the dataset holds. A reward names the columns it reads and swallows the rest.

        Returns:
            N finite floats; None where this reward cannot score the example.
        """
        ...


class RewardError(ValueError):
    """A reward that raised, hung, or returned something other than N finite numbers or None.

    Attributes:
        reward: the reward's name.
        index: position of the offending example in the batch, or None if no single example is to blame.
    """

    def __init__(self, reward: str, problem: str, *, index: int | None = None, completion: str | None = None):
        """Builds the message from the reward's name, what went wrong, and the example it went wrong on."""
        where = "" if index is None else f" on example {index}, completion {completion!r}"
        super().__init__(f"reward '{reward}' {problem}{where}")
        self.reward = reward
        self.index = index
