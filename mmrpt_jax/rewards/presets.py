"""Rewards by name, for configs, and the named mixes."""

import difflib
from collections.abc import Mapping

from mmrpt_jax.rewards.base import RewardFn
from mmrpt_jax.rewards.exact import exact_match
from mmrpt_jax.rewards.format import format_reward
from mmrpt_jax.rewards.grounded import grounded_match
from mmrpt_jax.rewards.instruction import INSTRUCTION_REWARDS
from mmrpt_jax.rewards.kinds import TaggedReward
from mmrpt_jax.rewards.knowledge import KNOWLEDGE_REWARD
from mmrpt_jax.rewards.prefix import strict_prefix
from mmrpt_jax.rewards.repetition import make_repetition_penalty
from mmrpt_jax.rewards.semantic import Encoder, make_semantic_reward
from mmrpt_jax.rewards.semantic_image import SELF_REWARDS
from mmrpt_jax.rewards.token_f1 import token_f1
from mmrpt_jax.rewards.visual_gain import visual_gain_reward

# Rewards that need nothing but the batch. Those that need a number or a model of the run
# (`make_soft_overlong`, `make_length_penalty`, `make_semantic_reward`) are made by the caller and passed to
# `weighted` beside these.
REWARDS: dict[str, RewardFn] = {
    "exact_match": exact_match,
    "format": format_reward,
    "grounded_match": grounded_match,
    "prefix": strict_prefix,
    "repetition": make_repetition_penalty(n=3),
    "token_f1": token_f1,
    "visual_gain": visual_gain_reward,
}

# Those of them that read the column `visual_gain`, which costs forward passes.
READ_GAIN = ("visual_gain", "grounded_match")

# Rewards of generated images that need nothing but the batch. `by_task` makes one of `REWARDS`' kind of them; the
# one that needs an encoder is made by `make_image_text_cosine`.
IMAGE_REWARDS: dict[str, TaggedReward] = {
    reward.name: reward for reward in (*INSTRUCTION_REWARDS, *SELF_REWARDS, KNOWLEDGE_REWARD)
}


def weighted(
    weights: Mapping[str, float], *, more: Mapping[str, RewardFn] | None = None
) -> dict[str, tuple[RewardFn, float]]:
    """Looks up rewards by name and pairs them with their weights, ready for `compose.score`.

    Args:
        weights: reward name -> weight.
        more: further rewards by name; they take precedence over `REWARDS`.

    Raises:
        KeyError: a name is unknown; the message suggests the nearest.
    """
    known = {**REWARDS, **(more or {})}
    for name in weights:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise KeyError(f"unknown reward '{name}', did you mean '{nearest[0]}'?")
    return {name: (known[name], weight) for name, weight in weights.items()}


def exact_prefix() -> dict[str, tuple[RewardFn, float]]:
    """What is known of MMRPT's reward, exact match and strict prefix, plus the format.

    Weights are ours. Ranges from 0 to 1.1; needs the column `answer`.
    """
    return weighted({"exact_match": 1.0, "prefix": 0.5, "format": 0.1})


def semantic_visual(encode: Encoder | None = None) -> dict[str, tuple[RewardFn, float]]:
    """The semantic-visual reward: our default mix, not the paper's, whose weights are not public.

    | part     | reward        | weight | why                                                              |
    |----------|---------------|--------|------------------------------------------------------------------|
    | semantic | `exact_match` | 1.0    | the goal                                                         |
    |          | `prefix`      | 0.5    | credit on the way to it                                          |
    |          | `token_f1`    | 0.3    | long spans rarely match exactly; all-zero groups teach nothing   |
    |          | `semantic`    | 0.3    | the same for paraphrases; only if `encode` is given              |
    | visual   | `visual_gain` | 0.5    | pays what the image makes likely, not what captions usually say  |
    | format   | `format`      | 0.1    | a well-formed wrong answer beats a malformed one                 |

    An exact answer always beats one that is not: `prefix` and `visual_gain` together pay a wrong answer less
    than 1.0, and every other part pays the exact answer in full. Needs the columns `answer` and `visual_gain`
    (unsigned).

    Args:
        encode: a sentence encoder for `make_semantic_reward`, used with that function's default floor.
    """
    weights = {"exact_match": 1.0, "prefix": 0.5, "token_f1": 0.3, "visual_gain": 0.5, "format": 0.1}
    if encode is None:
        return weighted(weights)
    return weighted({**weights, "semantic": 0.3}, more={"semantic": make_semantic_reward(encode)})
