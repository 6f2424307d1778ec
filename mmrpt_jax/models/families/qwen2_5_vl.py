"""Qwen2.5-VL (arXiv 2502.13923): images of any size, windows of patches, rotary positions over three axes."""

from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import ConnectorConfig, RotaryConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.families.lineage import (
    CLIP_MEAN,
    CLIP_STD,
    activation,
    decoder_sizes,
    decoder_weights,
    fused_attention,
    linear,
    norm,
    rotary_config,
)
from mmrpt_jax.models.weight_table import Weight, patches

# Beginnings of names in published checkpoints, and of the same modules in a loaded model.
MODULES = {"model.": "model.language_model.", "visual.": "model.visual."}


def model_config(config: Mapping[str, Any]) -> VLMConfig:
    """Our config from a parsed `config.json`; that of the first releases has the decoder's numbers on the outside."""
    text = config.get("text_config") or config
    return VLMConfig(
        vocab_size=text["vocab_size"],
        decoder=TransformerConfig(
            **decoder_sizes(text),
            rope=rotary_config(text),
            local_layers=_sliding_layers(text),
            local_reach=text.get("sliding_window") or 1,
            qkv_bias=True,
            activation=activation(text["hidden_act"]),
        ),
        vision=_vision(config["vision_config"]),
        image_positions="grid",
        scale_embeddings=False,
        tied=config.get("tie_word_embeddings", False) or text.get("tie_word_embeddings", False),
    )


def _sliding_layers(text: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which layers of the decoder have a sliding window; in published checkpoints none has."""
    layers = range(text["num_hidden_layers"])
    if not text.get("use_sliding_window"):
        return ()
    kinds = text.get("layer_types")
    return tuple(kinds[i] == "sliding_attention" if kinds else i >= text["max_window_layers"] for i in layers)


def _vision(vision: Mapping[str, Any]) -> VisionConfig:
    width, heads, depth = vision["hidden_size"], vision["num_heads"], vision["depth"]
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    head_dim = width // heads
    tower = TransformerConfig(
        width=width,
        layers=depth,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        mlp=vision["intermediate_size"],
        rope=RotaryConfig(10_000.0, (head_dim // 4, head_dim // 4), "restarted"),
        local_layers=tuple(layer not in vision["fullatt_block_indexes"] for layer in range(depth)),
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        activation=activation(vision["hidden_act"]),
    )
    # Images come as patches, of any size; given whole, they would have a side of 16 tokens.
    side = 16 * merge * patch
    return VisionConfig(
        side,
        side,
        patch,
        tower,
        positions="none",
        window=vision["window_size"] // merge // patch * merge,
        frames=vision["temporal_patch_size"],
        patch_bias=False,
        pixel_mean=CLIP_MEAN,
        pixel_std=CLIP_STD,
        connector=ConnectorConfig(merge, hidden=merge**2 * width, activation="gelu"),
    )


def weight_table(model: VLMConfig) -> list[Weight]:
    """Our weights and theirs, in the names of the published checkpoints."""
    vision = model.vision
    sizes = (3, vision.frames, vision.patch_size, vision.patch_size)
    layer, ours = "visual.blocks.{layer}.", "vision/stack/layers/"
    return [
        *decoder_weights("model."),
        # A still image is seen as `frames` equal ones: our flat patch counts frame, row, column, channel.
        Weight(
            "vision/patch_embedding/kernel", "visual.patch_embed.proj.weight", patches(sizes, (1, 2, 3, 0))
        ),
        *norm(f"{ours}attention_norm", f"{layer}norm1"),
        *fused_attention(ours.rstrip("/"), f"{layer}attn.qkv"),
        *linear(f"{ours}out", f"{layer}attn.proj"),
        *norm(f"{ours}mlp_norm", f"{layer}norm2"),
        *(
            weight
            for name in ("gate", "up", "down")
            for weight in linear(f"{ours}mlp/{name}", f"{layer}mlp.{name}_proj")
        ),
        # Their norm in front of the connector is the last one of our tower.
        *norm("vision/stack/final_norm", "visual.merger.ln_q"),
        *linear("vision/connector_in", "visual.merger.mlp.0"),
        *linear("vision/connector_out", "visual.merger.mlp.2"),
    ]
