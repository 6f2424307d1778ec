"""One policy update on a batch of groups: shared prompts, clipped surrogate, micro-batches, one division."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, UInt8

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.places import Packing
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens
from mmrpt_jax.objectives import policy_loss
from mmrpt_jax.training.accumulate import LossFn, make_update
from mmrpt_jax.training.state import TrainState


class PolicyBatch(NamedTuple):
    """Groups to learn from.

    Attributes:
        images: the images that the policy saw.
        prompt: masked captions.
        branches: sampled answers.
        behaviour_logprobs: [B G R] from the sampler, nats.
        advantages: [B G].
        trained: [B G], False for completions left out of the loss (truncated, unscorable, zero-variance group).
        ref_logprobs: [B G R] under the reference, or None without a KL term.
        packing: how the answers of a group share a row (`models.packing`), those out of the loss left out; None: a row
            each.
    """

    images: UInt8[Array, "B C h w 3"]
    prompt: PromptTokens
    branches: BranchTokens
    behaviour_logprobs: Float[Array, "B G R"]
    advantages: Float[Array, "B G"]
    trained: Bool[Array, "B G"]
    ref_logprobs: Float[Array, "B G R"] | None = None
    packing: Packing | None = None


def make_policy_loss(config: VLMConfig, *, temperature: float, banned: np.ndarray, **loss_options) -> LossFn:
    """Builds `loss(params, batch) -> (sum, (count, metrics))`.

    Args:
        config: the model.
        temperature: as in sampling.
        banned: as in sampling.
        **loss_options: `variant`, `clip_low`, `clip_high`, `budget`, `kl`, `kl_coefficient`, `entropy_coefficient` of
            `objectives.policy_loss`.
    """

    def loss(params, batch: PolicyBatch):
        out = forward(
            config,
            params,
            batch.images,
            batch.prompt,
            batch.branches,
            batch.packing,
            temperature=temperature,
            banned=banned,
        )
        mask = batch.branches.valid & batch.trained[..., None]
        total, count, metrics = policy_loss(
            out.logprobs,
            batch.behaviour_logprobs,
            batch.advantages,
            mask,
            ref_logprobs=batch.ref_logprobs,
            entropy=out.entropy,
            **loss_options,
        )
        gap = jnp.sum(jnp.where(mask, jnp.abs(out.logprobs - batch.behaviour_logprobs), 0.0))
        return total, (count, metrics | {"sampler_gap": (gap, jnp.sum(mask, dtype=jnp.float32))})

    return loss


def make_policy_step(
    config: VLMConfig, optimizer: optax.GradientTransformation, *, micro_batches: int = 1, **options
) -> Callable[[TrainState, PolicyBatch], tuple[TrainState, dict]]:
    """Builds `step(state, batch) -> (state, metrics)` on the mean of `make_policy_loss`, which takes the options."""
    return make_update(make_policy_loss(config, **options), optimizer, micro_batches=micro_batches)
