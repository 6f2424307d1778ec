"""Abstract batches, as large as a config's buckets allow."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mmrpt_jax.models import BranchTokens, ImagePatches, PromptTokens, VLMConfig


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """An abstract array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def image_shapes(config: ConfigDict, model: VLMConfig, prompts: int) -> ImagePatches | jax.ShapeDtypeStruct:
    """One image per prompt: given whole, or as patches where checkpoints take any size."""
    vision = model.vision
    if not config.data.patch_counts:
        return array(prompts, 1, vision.image_height, vision.image_width, 3, dtype=jnp.uint8)
    shape = (prompts, max(config.data.patch_counts))
    places = [array(*shape, dtype=jnp.int32)] * 3
    return ImagePatches(array(*shape, vision.patch_pixels, dtype=jnp.uint8), *places)


def prompt_shapes(prompts: int, length: int) -> PromptTokens:
    """Token ids, which of them are images', which are no padding."""
    masks = [array(prompts, length, dtype=bool)] * 2
    return PromptTokens(array(prompts, length, dtype=jnp.int32), *masks)


def branch_shapes(prompts: int, group: int, length: int) -> BranchTokens:
    """Token ids, and which are no padding."""
    shape = (prompts, group, length)
    return BranchTokens(array(*shape, dtype=jnp.int32), array(*shape, dtype=bool))


def image_buckets(config: ConfigDict) -> int:
    """Shapes that a prompt with its images may have."""
    return len(config.data.prompt_lengths) * max(len(config.data.patch_counts), 1)
