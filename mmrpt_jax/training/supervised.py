"""Imitation: next-token cross-entropy. Captioning, the format warm-up and supervised controls are this step."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, UInt8

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.training.accumulate import LossFn, make_update
from mmrpt_jax.training.state import TrainState


class SupervisedBatch(NamedTuple):
    """Images, prompts and the texts to imitate.

    Attributes:
        images: one or more images per prompt.
        prompt: what is given.
        branches: what is learned, G texts per prompt.
        blind: [B], True where the image is hidden from the prompt and the branches.
    """

    images: UInt8[Array, "B C h w 3"]
    prompt: PromptTokens
    branches: BranchTokens
    blind: Bool[Array, " B"]


def hide_images(prompt: PromptTokens, blind: Bool[Array, " B"]) -> PromptTokens:
    """Makes the visual tokens of blind rows invisible; positions stay as they are."""
    return prompt._replace(valid=prompt.valid & ~(prompt.image_slots & blind[:, None]))


def make_supervised_loss(config: VLMConfig) -> LossFn:
    """Builds `loss(params, batch) -> (sum, (count, metrics))`: the cross-entropy over all branch tokens, nats."""

    def loss(params, batch: SupervisedBatch):
        out = forward(config, params, batch.images, hide_images(batch.prompt, batch.blind), batch.branches)
        mask = batch.branches.valid
        count = jnp.sum(mask, dtype=jnp.float32)
        entropy = jnp.sum(jnp.where(mask, out.entropy, 0.0))
        return -jnp.sum(jnp.where(mask, out.logprobs, 0.0)), (count, {"entropy": (entropy, count)})

    return loss


def make_supervised_step(
    config: VLMConfig, optimizer: optax.GradientTransformation, *, micro_batches: int = 1
) -> Callable[[TrainState, SupervisedBatch], tuple[TrainState, dict]]:
    """Builds `step(state, batch) -> (state, metrics)` on the mean of `make_supervised_loss`."""
    return make_update(make_supervised_loss(config), optimizer, micro_batches=micro_batches)
