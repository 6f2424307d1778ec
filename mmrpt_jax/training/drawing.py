"""Imitation of images: flow matching on the latents of pictures behind their prompts."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.vlm import PromptTokens
from mmrpt_jax.objectives import (
    flow_matching_loss,
    interpolate,
    logit_normal_times,
)


class DrawingBatch(NamedTuple):
    """Prompts and the pictures to learn to draw from them.

    Attributes:
        prompt: what is asked for.
        clean: [B G I features], the latents of G pictures per prompt, as `models.autoencoder.encode_tokens` gives them.
        weights: [B G] of each picture in the mean, ≥ 0.
        seeds: [B] of the noise; the noise of a row depends on its own seed alone.
    """

    prompt: PromptTokens
    clean: Float[Array, "B G I features"]
    weights: Float[Array, "B G"]
    seeds: Int[Array, " B"]


def make_drawing_loss(config: UnifiedConfig, *, shift: float = 1.0, repeats: int = 1) -> Callable:
    """Builds `loss(params, batch) -> (sum, (count, metrics))`: Σ w |v − (ε − x₀)|² / I·C over pictures.

    Times are `sigmoid(N(0, 1))`, shifted towards the noise (BAGEL, arXiv 2505.14683).

    Args:
        config: the model.
        shift: of the times.
        repeats: noise levels that each picture is shown at; they share its prompt, so that more cost little.
    """

    def loss(params, batch: DrawingBatch):
        clean = jnp.repeat(batch.clean, repeats, axis=1)
        times, noise = jax.vmap(lambda seed: _corruption(seed, clean.shape[1:], shift))(batch.seeds)
        prompt = encode_prompt(config, params, None, batch.prompt)
        found = velocity(config, params, prompt, interpolate(clean, noise, times), times)
        weights = jnp.repeat(batch.weights, repeats, axis=1)
        total, count = flow_matching_loss(found, clean, noise, weights > 0, weights=weights)
        return total, (count, {})

    return loss


def _corruption(seed: Int[Array, ""], shape: tuple[int, int, int], shift: float):
    for_times, for_noise = jax.random.split(jax.random.key(seed))
    return logit_normal_times(for_times, shape[:1], shift=shift), jax.random.normal(for_noise, shape)
