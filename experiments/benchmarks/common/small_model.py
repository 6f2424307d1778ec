"""The model of the benchmarks: Qwen2.5-VL's shape, small enough for two cores; and its prompts."""

import jax.numpy as jnp

from experiments.benchmarks.grpo.work import DECODER, ROTARY, TOWER
from mmrpt_jax.models import PromptTokens, VLMConfig
from mmrpt_jax.models.families.qwen2_5_vl import model_config


def small_model() -> VLMConfig:
    """8 layers of width 256, 8 heads of which 2 have keys, 8192 tokens; a tower of 4 layers of width 128."""
    return model_config(
        {
            "text_config": DECODER | {"rope_parameters": ROTARY},
            "vision_config": TOWER,
            "tie_word_embeddings": True,
        }
    )


def text_prompt(length: int) -> PromptTokens:
    """One prompt without images or padding."""
    shape = (1, length)
    return PromptTokens(jnp.ones(shape, jnp.int32), jnp.ones(shape, bool), jnp.zeros(shape, bool))
