"""Gemma 3 (arXiv 2503.19786): SigLIP tower, mean-pooled visual tokens that see each other, sliding windows."""

import math
from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import ConnectorConfig, RotaryConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.families.lineage import (
    SANDWICH_NORMS,
    activation,
    decoder_sizes,
    decoder_weights,
    filled,
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
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "attn_logit_softcapping": 0.0,
    "final_logit_softcapping": 0.0,
}
# Beginnings of names in published checkpoints, and of the same modules in a loaded model.
MODULES = {
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
    "vision_tower.vision_model.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}
# Checkpoints that `transformers` writes since version 5 leave a step out.
WRITTEN = {
    f"vision_tower.{part}.": f"vision_tower.vision_model.{part}."
    for part in ("embeddings", "encoder", "post_layernorm")
}


def model_config(config: Mapping[str, Any]) -> VLMConfig:
    """Our config from a parsed `config.json`.

    Raises:
        ValueError: text sees what follows it, or an image does not fit into the sliding window.
    """
    text = filled(config["text_config"], _TEXT)
    image_tokens = config.get("mm_tokens_per_image", 256)
    if text.get("use_bidirectional_attention"):
        raise ValueError(
            "config.json has use_bidirectional_attention: this encoder of texts cannot write any; "
            "take a Gemma 3 that generates"
        )
    if image_tokens > text["sliding_window"]:
        raise ValueError(
            f"config.json has mm_tokens_per_image {image_tokens}, more than sliding_window "
            f"{text['sliding_window']}: an image must fit into the window, or its tokens do not see each other"
        )
    rope, local_rope = _ropes(text)
    return VLMConfig(
        vocab_size=text["vocab_size"],
        decoder=TransformerConfig(
            **decoder_sizes(text),
            rope=rope,
            local_layers=_sliding_layers(text),
            local_reach=text["sliding_window"],
            local_rope=local_rope,
            qk_norm=True,
            qkv_bias=text["attention_bias"],
            out_bias=text["attention_bias"],
            query_scale=text["query_pre_attn_scalar"] ** -0.5,
            score_softcap=text["attn_logit_softcapping"],
            activation=activation(text["hidden_activation"]),
            norm="rms_centred",
            sandwich_norms=True,
        ),
        vision=_vision(filled(config["vision_config"], TOWER), math.isqrt(image_tokens)),
        image_attention="bidirectional",
        tied=config.get("tie_word_embeddings", True),
        logit_softcap=text["final_logit_softcapping"],
    )


def _ropes(text: Mapping[str, Any]) -> tuple[RotaryConfig, RotaryConfig]:
    """Rotary positions of the layers that see everything, and of those with a window."""
    kinds = text.get("rope_parameters")
    if kinds is None:
        return rotary_config(text), RotaryConfig(text["rope_local_base_freq"])
    whole, local = (
        rotary_config({"rope_parameters": kinds[f"{kind}_attention"]}) for kind in ("full", "sliding")
    )
    return whole, local


def _sliding_layers(text: Mapping[str, Any]) -> tuple[bool, ...]:
    """All but every sixth."""
    if kinds := text.get("layer_types"):
        return tuple(kind == "sliding_attention" for kind in kinds)
    return tuple(bool((i + 1) % text["sliding_window_pattern"]) for i in range(text["num_hidden_layers"]))


def _vision(vision: Mapping[str, Any], tokens_per_side: int) -> VisionConfig:
    side, patch = image_side(vision), vision["patch_size"]
    merge = side // patch // tokens_per_side
    return VisionConfig(
        side,
        side,
        patch,
        tower_config(vision),
        connector=ConnectorConfig(
            merge, "mean", norm="rms_centred", norm_eps=vision["layer_norm_eps"], hidden=0, bias=False
        ),
    )


def weight_table(model: VLMConfig) -> list[Weight]:
    """Our weights and theirs, in the names of the published checkpoints."""
    theirs, connector = "vision_tower.vision_model", "multi_modal_projector."
    return [
        *decoder_weights("language_model.model.", head="language_model.lm_head", norms=SANDWICH_NORMS),
        *patch_weights(
            "vision/patch_embedding", "vision/positions", f"{theirs}.embeddings", model.vision.patch_size
        ),
        *tower_weights("vision/stack", f"{theirs}.encoder"),
        *norm("vision/stack/final_norm", f"{theirs}.post_layernorm"),
        *norm("vision/connector_norm", f"{connector}mm_soft_emb_norm"),
        # Kept as [in out], unlike other matrices.
        Weight("vision/connector_out/kernel", f"{connector}mm_input_projection_weight"),
    ]
