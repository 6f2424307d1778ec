"""Qwen3-VL, dense (arXiv 2511.21631): interleaved rotary sections, deep-stacked visual features, q/k norm."""

from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import ConnectorConfig, RotaryConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.families.lineage import (
    activation,
    decoder_sizes,
    decoder_weights,
    fused_attention,
    linear,
    norm,
    rotary_config,
)
from mmrpt_jax.models.weight_table import Weight, patches


def model_config(config: Mapping[str, Any]) -> VLMConfig:
    """Our config from a parsed `config.json`."""
    text = config["text_config"]
    return VLMConfig(
        vocab_size=text["vocab_size"],
        decoder=TransformerConfig(
            **decoder_sizes(text),
            rope=rotary_config(text, "interleaved"),
            qk_norm=True,
            qkv_bias=text.get("attention_bias", False),
            out_bias=text.get("attention_bias", False),
            activation=activation(text["hidden_act"]),
        ),
        vision=_vision(config["vision_config"]),
        image_positions="grid",
        scale_embeddings=False,
        tied=config.get("tie_word_embeddings", False),
    )


def _vision(vision: Mapping[str, Any]) -> VisionConfig:
    width, heads = vision["hidden_size"], vision["num_heads"]
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    head_dim = width // heads
    tower = TransformerConfig(
        width=width,
        layers=vision["depth"],
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        mlp=vision["intermediate_size"],
        rope=RotaryConfig(10_000.0, (head_dim // 4, head_dim // 4), "restarted"),
        qkv_bias=True,
        out_bias=True,
        gated=False,
        activation=activation(vision["hidden_act"]),
        mlp_bias=True,
        norm="layer",
    )
    side = round(vision["num_position_embeddings"] ** 0.5) * patch
    return VisionConfig(
        side,
        side,
        patch,
        tower,
        positions="bilinear",
        frames=vision["temporal_patch_size"],
        connector=ConnectorConfig(merge, hidden=merge**2 * width, activation="gelu"),
        deepstack_layers=tuple(vision["deepstack_visual_indexes"]),
    )


def weight_table(model: VLMConfig) -> list[Weight]:
    """Our weights and theirs, in the names of the published checkpoints."""
    vision = model.vision
    sizes = (3, vision.frames, vision.patch_size, vision.patch_size)
    theirs, layer, ours = "model.visual.", "model.visual.blocks.{layer}.", "vision/stack/layers/"
    deep = "model.visual.deepstack_merger_list.{layer}."
    return [
        *decoder_weights("model.language_model."),
        # A still image is seen as `frames` equal ones: our flat patch counts frame, row, column, channel.
        Weight(
            "vision/patch_embedding/kernel", f"{theirs}patch_embed.proj.weight", patches(sizes, (1, 2, 3, 0))
        ),
        Weight("vision/patch_embedding/bias", f"{theirs}patch_embed.proj.bias"),
        Weight("vision/positions", f"{theirs}pos_embed.weight"),
        *norm(f"{ours}attention_norm", f"{layer}norm1"),
        *fused_attention(ours.rstrip("/"), f"{layer}attn.qkv"),
        *linear(f"{ours}out", f"{layer}attn.proj"),
        *norm(f"{ours}mlp_norm", f"{layer}norm2"),
        *linear(f"{ours}mlp/up", f"{layer}mlp.linear_fc1"),
        *linear(f"{ours}mlp/down", f"{layer}mlp.linear_fc2"),
        # Their norm in front of the connector is the last one of our tower.
        *norm("vision/stack/final_norm", f"{theirs}merger.norm"),
        *linear("vision/connector_in", f"{theirs}merger.linear_fc1"),
        *linear("vision/connector_out", f"{theirs}merger.linear_fc2"),
        *norm("vision/deepstack/connector_norm", f"{deep}norm"),
        *linear("vision/deepstack/connector_in", f"{deep}linear_fc1"),
        *linear("vision/deepstack/connector_out", f"{deep}linear_fc2"),
    ]
