"""The arms of the comparison: the method and its controls, each trained from the same base with the same compute."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Arm:
    """How one arm is trained.

    Attributes:
        method: "none" stays the base; "caption" goes on imitating captions; "supervised" imitates the hidden spans;
            "policy" reconstructs them under reinforcement, after a supervised format warm-up.
        masks: which masks stage 3 made for it.
        blank_images: the image is replaced by a uniform one throughout training.
    """

    method: Literal["none", "caption", "supervised", "policy"]
    masks: Literal["dependency", "random", "content"] = "dependency"
    blank_images: bool = False


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "base": Arm("none"),
        "caption": Arm("caption"),
        "sft": Arm("supervised"),
        "random_masks": Arm("policy", masks="random"),
        "blank_images": Arm("policy", blank_images=True),
        "mmrpt": Arm("policy"),
    }
)
