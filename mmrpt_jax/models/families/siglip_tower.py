"""The image tower of SigLIP (arXiv 2303.15343), which several families begin with: its config and its weights."""

from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.families.lineage import activation, linear, norm
from mmrpt_jax.models.weight_table import Weight, patches

# What a published `config.json` of SigLIP leaves out.
TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


def tower_config(numbers: Mapping[str, Any]) -> TransformerConfig:
    """The transformer, from numbers that leave nothing out; also SigLIP's tower of texts."""
    width, heads = numbers["hidden_size"], numbers["num_attention_heads"]
    return TransformerConfig(
        width=width,
        layers=numbers["num_hidden_layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp=numbers["intermediate_size"],
        rope=None,
        qkv_bias=True,
        out_bias=True,
        gated=False,
        activation=activation(numbers["hidden_act"]),
        mlp_bias=True,
        norm="layer",
        norm_eps=numbers["layer_norm_eps"],
    )


def image_side(numbers: Mapping[str, Any]) -> int:
    """Pixels each way that the tower sees: those that fill no patch (384 of 14 x 14) are not looked at."""
    return numbers["image_size"] // numbers["patch_size"] * numbers["patch_size"]


def patch_weights(embedding: str, positions: str, theirs: str, patch_size: int) -> list[Weight]:
    """Our embedding of patches and our learned positions, row by row; both stand together in theirs."""
    layout = patches((3, patch_size, patch_size), (1, 2, 0))
    return [
        Weight(f"{embedding}/kernel", f"{theirs}.patch_embedding.weight", layout),
        Weight(f"{embedding}/bias", f"{theirs}.patch_embedding.bias"),
        Weight(positions, f"{theirs}.position_embedding.weight"),
    ]


def tower_weights(ours: str, theirs: str) -> list[Weight]:
    """The layers of the transformer."""
    layer, ours = f"{theirs}.layers.{{layer}}.", f"{ours}/layers/"
    return [
        *norm(f"{ours}attention_norm", f"{layer}layer_norm1"),
        *linear(f"{ours}query", f"{layer}self_attn.q_proj"),
        *linear(f"{ours}key", f"{layer}self_attn.k_proj"),
        *linear(f"{ours}value", f"{layer}self_attn.v_proj"),
        *linear(f"{ours}out", f"{layer}self_attn.out_proj"),
        *norm(f"{ours}mlp_norm", f"{layer}layer_norm2"),
        *linear(f"{ours}mlp/up", f"{layer}mlp.fc1"),
        *linear(f"{ours}mlp/down", f"{layer}mlp.fc2"),
    ]
