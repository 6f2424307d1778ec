"""The velocity that a sampler follows: prompts computed once, and the model steered by them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.unified import ThoughtState, encode_prompt, encode_thoughts, velocity
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.vlm import BranchTokens, PromptState, PromptTokens
from mmrpt_jax.sampling.guidance import Guidance, guide

# (x_t [B G I C], t [B G]) -> v [B G I C]
Field = Callable[[Float[Array, "B G I C"], Float[Array, "B G"]], Float[Array, "B G I C"]]


class Conditions(NamedTuple):
    """What images are drawn from.

    Attributes:
        prompt: the prompts.
        images: C images per prompt, or their patches, or None.
        thoughts: [B G R] a text before each image, or None.
        textless: the prompts without their text, for text guidance; without images, what a drawing is asked for
            with, or no token at all.
        imageless: the prompts without their images, for image guidance.
    """

    prompt: PromptTokens
    images: UInt8[Array, "B C h w 3"] | ImagePatches | None = None
    thoughts: BranchTokens | None = None
    textless: PromptTokens | None = None
    imageless: PromptTokens | None = None


def make_field(
    config: UnifiedConfig, params, conditions: Conditions, guidance: Guidance, *, repeats: int = 1
) -> Field:
    """Computes the prompts, once, and builds the guided velocity behind them.

    Args:
        config: the model.
        params: its parameters.
        conditions: prompts, thoughts, and prompts to steer away from.
        guidance: how far.
        repeats: branches in a row that stand behind the same thought.

    Raises:
        ValueError: guidance without the prompt that it needs.
    """
    text, image = guidance.text > 1.0, guidance.image > 1.0
    if text and conditions.textless is None:
        raise ValueError(f"text guidance of {guidance.text} needs `textless`, the prompt without its text")
    if image and conditions.imageless is None:
        raise ValueError(
            f"image guidance of {guidance.image} needs `imageless`, the prompt without its images"
        )
    fixed = jax.lax.stop_gradient(params)
    images, thoughts = conditions.images, conditions.thoughts
    given = _encode(config, params, images, conditions.prompt, thoughts, repeats)
    textless = _encode(config, fixed, images, conditions.textless, None, repeats) if text else None
    imageless = _encode(config, fixed, None, conditions.imageless, thoughts, repeats) if image else None

    def field(latents, times):
        def behind(params, context):
            return velocity(config, params, context[0], latents, times, context[1])

        def guided(plain):
            others = [
                None if context is None else behind(fixed, context) for context in (textless, imageless)
            ]
            return guide(plain, *others, guidance)

        plain = behind(params, given)
        if not (text or image):
            return plain
        if guidance.always:
            return guided(plain)
        # Outside of the interval the other contexts are not even looked at.
        inside = guidance.covers(times)
        mixed = jax.lax.cond(inside.any(), guided, lambda plain: plain, plain)
        return jnp.where(inside[..., None, None], mixed, plain)

    return field


def _encode(
    config: UnifiedConfig, params, images, prompt: PromptTokens, thoughts: BranchTokens | None, repeats: int
) -> tuple[PromptState, ThoughtState | None]:
    state = encode_prompt(config, params, images, prompt)
    if thoughts is None:
        return state, None
    thought = encode_thoughts(config, params, state, thoughts)
    keys, values = (jnp.repeat(x, repeats, axis=3) for x in (thought.keys, thought.values))
    valid, length = (jnp.repeat(x, repeats, axis=1) for x in (thought.valid, thought.length))
    return state, ThoughtState(keys, values, valid, length)
