"""The arms of the comparison: the method and its controls, each trained from the same base with the same compute."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

BOTH = ("understanding", "generation")


@dataclasses.dataclass(frozen=True)
class Arm:
    """How one arm is trained.

    Attributes:
        method: "none" stays the base; "imitation" imitates the true answers and pictures of the prompts that the policy
            arms are given; "policy" learns from what it samples.
        tasks: what it learns: to answer, to draw, or both in one update.
        best_of: imitates the best of each group, in place of the configured policy losses.
        shuffled: credits what one member of a group earned to another.
        rewards: the rewards of drawings that count, by name; those of the config if empty.
    """

    method: Literal["none", "imitation", "policy"]
    tasks: tuple[str, ...] = BOTH
    best_of: bool = False
    shuffled: bool = False
    rewards: tuple[str, ...] = ()


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "base": Arm("none"),
        "sft": Arm("imitation"),
        "best_of": Arm("policy", best_of=True),
        "shuffled": Arm("policy", shuffled=True),
        "strict_only": Arm("policy", rewards=("instruction_strict",)),
        "likelihood_only": Arm("policy", rewards=("prompt_likelihood",)),
        "understanding": Arm("policy", tasks=("understanding",)),
        "generation": Arm("policy", tasks=("generation",)),
        "lvrpo": Arm("policy"),
    }
)
