"""Idefics3 (arXiv 2408.12637) and SmolVLM (arXiv 2504.05299): tiles of an image are images, pixel shuffle, a Llama."""

from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import ConnectorConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.families.lineage import (
    activation,
    decoder_sizes,
    decoder_weights,
    filled,
    linear,
    norm,
    rotary_config,
)
from mmrpt_jax.models.families.siglip_tower import (
    TOWER,
    image_side,
    patch_weights,
    tower_config,
    tower_weights,
)
from mmrpt_jax.models.weight_table import Weight

# What a published `config.json` leaves out.
_TEXT = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "mlp_bias": False,
}
_VISION = {**TOWER, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}


def model_config(config: Mapping[str, Any]) -> VLMConfig:
    """Our config from a parsed `config.json`."""
    text = filled(config["text_config"], _TEXT)
    return VLMConfig(
        vocab_size=text["vocab_size"],
        decoder=TransformerConfig(
            **decoder_sizes(text),
            rope=rotary_config(text),
            qkv_bias=text["attention_bias"],
            out_bias=text["attention_bias"],
            activation=activation(text["hidden_act"]),
            mlp_bias=text["mlp_bias"],
        ),
        vision=_vision(filled(config["vision_config"], _VISION), config.get("scale_factor", 2)),
        scale_embeddings=False,
        tied=config.get("tie_word_embeddings", False),
    )


def _vision(vision: Mapping[str, Any], merge: int) -> VisionConfig:
    side = image_side(vision)
    return VisionConfig(
        side,
        side,
        vision["patch_size"],
        tower_config(vision),
        positions="nearest",
        connector=ConnectorConfig(merge, hidden=0, bias=False),
    )


def weight_table(model: VLMConfig) -> list[Weight]:
    """Our weights and theirs, in the names of the published checkpoints."""
    theirs = "model.vision_model"
    return [
        *decoder_weights("model.text_model."),
        *patch_weights(
            "vision/patch_embedding", "vision/positions", f"{theirs}.embeddings", model.vision.patch_size
        ),
        *tower_weights("vision/stack", f"{theirs}.encoder"),
        *norm("vision/stack/final_norm", f"{theirs}.post_layernorm"),
        *linear("vision/connector_out", "model.connector.modality_projection.proj"),
    ]
