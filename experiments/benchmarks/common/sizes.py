"""The models that are measured: Qwen2.5-VL's shape in several sizes, as a `config.json` has it, with random weights."""

import argparse
import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from experiments.benchmarks.published_sizes import QWEN2_5_VL
from mmrpt_jax.models import PromptTokens, VLMConfig
from mmrpt_jax.models.config import DTYPES
from mmrpt_jax.models.families.qwen2_5_vl import model_config

# Small enough for two cores.
_SMALL_TEXT = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
}
_SMALL_TOWER = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "out_hidden_size": 256,
    "hidden_act": "silu",
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "fullatt_block_indexes": [0, 1, 2, 3],
    "window_size": 112,
}
# For rehearsals, where nothing is measured.
_TINY_TEXT = _SMALL_TEXT | {
    "vocab_size": 1024,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
}
_TINY_TOWER = _SMALL_TOWER | {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [0],
}
SIZES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": {"text_config": _TINY_TEXT, "vision_config": _TINY_TOWER, "tie_word_embeddings": True},
        "small": {"text_config": _SMALL_TEXT, "vision_config": _SMALL_TOWER, "tie_word_embeddings": True},
        **QWEN2_5_VL,
    }
)


def add_size(parser: argparse.ArgumentParser, *, default: str | None = "small") -> None:
    """Adds `--size` and `--dtype`."""
    parser.add_argument(
        "--size", default=default, choices=SIZES, help="of the model, with random weights (%(default)s)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=DTYPES, help="of its parameters and activations (%(default)s)"
    )


def of_model(options: argparse.Namespace) -> str:
    """What a title says of the model that was asked for, where one can be."""
    said = {" of ": getattr(options, "size", None), " in ": getattr(options, "dtype", None)}
    return "".join(word + value for word, value in said.items() if value)


def sized_model(size: str = "small", dtype: str = "float32") -> VLMConfig:
    """The model of a size; "small" has 8 layers of width 256, 8192 tokens and a tower of 4 layers of width 128."""
    return model_in(SIZES[size], dtype)


def model_in(numbers: Mapping[str, Any], dtype: str, *, remat: str = "none") -> VLMConfig:
    """The model that a `config.json` describes, kept and computed in `dtype`.

    Args:
        numbers: the parsed file.
        dtype: one of `DTYPES`.
        remat: what of a layer the backward pass computes anew, as in `TransformerConfig`.
    """
    model = model_config(numbers)
    tower = dataclasses.replace(model.vision.transformer, remat=remat)
    return dataclasses.replace(
        model,
        decoder=dataclasses.replace(model.decoder, remat=remat),
        vision=dataclasses.replace(model.vision, transformer=tower),
        param_dtype=dtype,
        compute_dtype=dtype,
    )


def text_prompt(length: int, prompts: int = 1) -> PromptTokens:
    """Prompts without images or padding."""
    shape = (prompts, length)
    return PromptTokens(jnp.ones(shape, jnp.int32), jnp.ones(shape, bool), jnp.zeros(shape, bool))
