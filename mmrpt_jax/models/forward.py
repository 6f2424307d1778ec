"""The forward pass of training, scoring and evaluation: how likely branches are, and what they looked at."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, UInt8

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.head import output_matrix, score_tokens
from mmrpt_jax.models.packing import pack, unpack
from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.places import Packing
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptTokens


class Forward(NamedTuple):
    """Scores of branch tokens.

    Attributes:
        logprobs: [B G R] of each branch token, nats, ≤ 0.
        entropy: [B G R] of the distribution that it was drawn from, nats, ≥ 0.
        mass: [L B G R N M] attention mass of each branch query per region, or None.
        received: [L B P N] attention mass that each prompt key received from the weighted queries, or None.
    """

    logprobs: Float[Array, "B G R"]
    entropy: Float[Array, "B G R"]
    mass: Float[Array, "L B G R N M"] | None
    received: Float[Array, "L B P N"] | None


def forward(
    config: VLMConfig,
    params,
    images: UInt8[Array, "B C h w 3"] | ImagePatches | None,
    prompt: PromptTokens,
    branches: BranchTokens,
    packing: Packing | None = None,
    *,
    temperature: float = 1.0,
    banned: Bool[Array, " V"] | None = None,
    regions: Float[Array, "B P M"] | None = None,
    query_weights: Float[Array, "B G R"] | None = None,
) -> Forward:
    """Runs prompts once and all their branches behind them.

    Args:
        config: the model.
        params: its parameters.
        images: C images per prompt, or their patches.
        prompt: the prompts.
        branches: G branches per prompt.
        packing: how they share a row (`packing.pack_lengths`); what it leaves out scores 0. None: a row each.
        temperature: divides the logits, as in sampling.
        banned: ids that cannot be sampled, as in sampling.
        regions: indicator columns over prompt keys, if their attention mass is wanted.
        query_weights: which branch queries count in the mass received; needed with `regions`.

    Raises:
        ValueError: attention mass is wanted of packed rows.
    """
    if packing is not None and regions is not None:
        raise ValueError("attention mass is told of branches in rows of their own: do not pack them")
    rows = branches if packing is None else pack(branches, packing)
    hidden, out = VLM(config).apply(
        {"params": params}, images, prompt, rows, regions, query_weights, method=VLM.run_group
    )
    scores = score_tokens(
        hidden,
        output_matrix(params),
        rows.ids,
        temperature=temperature,
        banned=banned,
        softcap=config.logit_softcap,
    )
    if packing is not None:
        scores = jax.tree.map(lambda x: unpack(x, packing, branches), scores)
    return Forward(scores.logprobs, scores.entropy, out.mass, out.received)
