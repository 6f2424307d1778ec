"""The arms of the comparison: the method and its controls, each trained from the same base with the same compute."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from ml_collections import ConfigDict

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


def algorithm_of(config: ConfigDict, arm: Arm) -> str:
    """The image loss of an arm, a name of `IMAGE_LOSSES`."""
    return "best_of" if arm.best_of else config.generation.algorithm


def needs_reference(config: ConfigDict, arm: Arm) -> bool:
    """Whether an arm's image loss measures against the frozen base."""
    algorithm = algorithm_of(config, arm)
    return algorithm == "dpo" or config.generation.losses[algorithm].get("kl", "none") != "none"


def reward_weights(config: ConfigDict, arm: Arm) -> dict[str, float]:
    """Weights of the rewards of drawings that count: those of the config, or the arm's own, with weight 1."""
    if arm.rewards:
        return dict.fromkeys(arm.rewards, 1.0)
    return {name: weight for name, weight in config.generation.rewards.items() if weight}


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
