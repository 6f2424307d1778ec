"""SigLIP and SigLIP 2 (arXiv 2502.14786) at fixed resolution: an encoder of images and texts that can be compared."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmrpt_jax.models.dual_encoder import DualEncoderConfig
from mmrpt_jax.models.families.lineage import filled, fused_attention, linear, norm
from mmrpt_jax.models.families.siglip_tower import TOWER, patch_weights, tower_config, tower_weights
from mmrpt_jax.models.weight_table import Layout, Weight

# What a published `config.json` leaves out, beside the tower's.
_TEXT = {"vocab_size": 32_000, "max_position_embeddings": 64}
# A cosine needs neither scale nor bias.
IGNORED = ("logit_scale", "logit_bias", "*.position_ids")


def model_config(config: Mapping[str, Any]) -> DualEncoderConfig:
    """Our config from a parsed `config.json`.

    Raises:
        ValueError: the checkpoint is not of this family, or has no head that makes one vector of an image.
    """
    if config.get("model_type") != "siglip":
        raise ValueError(
            f"config.json has model_type {config.get('model_type')!r}; take a SigLIP or SigLIP 2 of fixed resolution "
            "('siglip'), not one of any resolution ('siglip2')"
        )
    text, vision = (filled(config.get(f"{name}_config") or {}, TOWER) for name in ("text", "vision"))
    if not vision.get("vision_use_head", True):
        raise ValueError(
            "config.json has vision_use_head false: without the pooling head there is no embedding of an image"
        )
    text = filled(text, _TEXT)
    return DualEncoderConfig(
        image=tower_config(vision),
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        text=tower_config(text),
        text_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
    )


def weight_table(model: DualEncoderConfig) -> list[Weight]:
    """Our weights and theirs, in the names of the published checkpoints."""
    image, text, pool = "vision_model.", "text_model.", "vision_model.head."
    return [
        *patch_weights("patch_embedding", "patch_positions", f"{image}embeddings", model.patch_size),
        *tower_weights("image", f"{image}encoder"),
        *norm("image/final_norm", f"{image}post_layernorm"),
        Weight("pool/probe", f"{pool}probe", Layout(np.ravel, lambda x: x.reshape(1, 1, -1))),
        *fused_attention("pool", f"{pool}attention.in_proj", joint="_"),
        *linear("pool/out", f"{pool}attention.out_proj"),
        *norm("pool/mlp_norm", f"{pool}layernorm"),
        *linear("pool/mlp/up", f"{pool}mlp.fc1"),
        *linear("pool/mlp/down", f"{pool}mlp.fc2"),
        Weight("token_embedding", f"{text}embeddings.token_embedding.weight"),
        Weight("token_positions", f"{text}embeddings.position_embedding.weight"),
        *tower_weights("text", f"{text}encoder"),
        *norm("text/final_norm", f"{text}final_layer_norm"),
        *linear("head", f"{text}head"),
    ]
