"""How much likelier does the image make these words?"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.rewards.format import is_well_formed


def visual_gain(
    logprobs_with_image: Float[Array, "*E R"],
    logprobs_without_image: Float[Array, "*E R"],
    mask: Bool[Array, "*E R"],
    *,
    cap: float = 3.0,
    signed: bool = False,
) -> Float[Array, "*E"]:
    """Mean log-likelihood ratio of a span with and without the image, squashed to a bounded reward.

        gain = clip( 1/(cap·|y|) Σ_{k∈y} [ log p(y_k | I, x, y_<k) − log p(y_k | I∅, x, y_<k) ],  low, 1 )

    The visual information gain of arXiv 2602.17186 used as a reward, as RLP (arXiv 2510.01265) does with a
    thought in the place of the image. Our choice for MMRPT's unpublished visual term. Words that need the
    image are reported to gain 3 to 6 nats, function words about none, hence the default `cap`. Unbounded
    terms get hacked: one token that the blind model finds absurd would outweigh everything else.

    What is scored decides what is paid for:

    - *the true span*, after a sampled thought c: pays thoughts that make the truth likelier, whatever the
      answer. Give the blind side neither image nor thought. A thought sampled in front of the image describes
      it, so a blind model that reads the thought needs no image, and the gain would punish good descriptions.
      Without a thought in the condition, the term is the same for all G completions and cancels in the
      advantage.
    - *the sampled answer*, under the frozen base without a thought: pays answers that fit this image rather
      than any, also where they answer another question. Exact match has to outweigh it.

    Args:
        logprobs_with_image: log-probabilities of the tokens of each completion or span, nats, ≤ 0.
        logprobs_without_image: the same tokens' with the image removed, blurred or masked out.
        mask: which of the R positions belong to the span y; values elsewhere are ignored.
        cap: the mean gain in nats per token that earns 1; positive.
        signed: False for [0, 1]; True for [−1, 1], where words that the image speaks against cost. With a
            strict format gate use False: otherwise a malformed completion (0) beats a well-formed mistaken
            one.

    Returns:
        The bounded gain; 0 for an empty span.
    """
    difference = jnp.where(mask, logprobs_with_image - logprobs_without_image, 0.0)
    mean = difference.sum(axis=-1) / jnp.maximum(mask.sum(axis=-1), 1)
    return jnp.clip(mean / cap, -1.0 if signed else 0.0, 1.0)


def visual_gain_reward(
    prompts: list[str], completions: list[str], *, visual_gain: list[float | None], **columns: Any
) -> list[float | None]:
    """Reward read from the column `visual_gain`, as the function of that name computes it.

    Whether the column holds the gain of the truth or of the sampled answer is the trainer's choice. Malformed
    completions get 0; None stays None.

    Raises:
        ValueError: a value lies outside [−1, 1], so it has not been through `visual_gain`.
    """
    del prompts, columns
    rewards: list[float | None] = []
    for index, (completion, gain) in enumerate(zip(completions, visual_gain, strict=True)):
        if gain is not None and not -1.0 <= gain <= 1.0:
            raise ValueError(
                f"visual_gain[{index}] is {gain}, outside [-1, 1]: fill the column with visual_gain()"
            )
        rewards.append(gain if gain is None or is_well_formed(completion) else 0.0)
    return rewards
