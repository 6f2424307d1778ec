"""What families have in common: decoders with the names that Llama gave, and how a `config.json` says things."""

import math
from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import RotaryConfig
from mmrpt_jax.models.weight_table import AS_IS, TRANSPOSE, Weight

# Their names of activations, and ours.
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def filled(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A config with what it leaves out: published files hold only what differs from their class's defaults."""
    return {**defaults, **{key: value for key, value in config.items() if value is not None}}


def activation(theirs: str) -> str:
    """Our name of an activation.

    Raises:
        ValueError: it is not known.
    """
    if theirs not in _ACTIVATIONS:
        raise ValueError(f"the activation {theirs!r} is not known; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[theirs]


def linear(ours: str, theirs: str, *, joint: str = ".", **options: Any) -> list[Weight]:
    """A matrix with its bias, behind `joint` in theirs; an entry that a model has no weight for is not used."""
    return [
        Weight(f"{ours}/kernel", f"{theirs}{joint}weight", TRANSPOSE, **options),
        Weight(f"{ours}/bias", f"{theirs}{joint}bias", AS_IS, **options),
    ]


def norm(ours: str, theirs: str) -> list[Weight]:
    """A norm's scale, and its bias if it has one."""
    return [Weight(f"{ours}/scale", f"{theirs}.weight"), Weight(f"{ours}/bias", f"{theirs}.bias")]


def fused_attention(ours: str, theirs: str, *, joint: str = ".") -> list[Weight]:
    """Queries, keys and values that lie in one matrix, one above the other."""
    return [
        weight
        for index, name in enumerate(("query", "key", "value"))
        for weight in linear(f"{ours}/{name}", theirs, joint=joint, part=(index, 3))
    ]


# Our norms of a layer and theirs. What stands behind the attention is the MLP's norm, or, in a sandwich, its own.
PRE_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
SANDWICH_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def decoder_weights(
    prefix: str, *, head: str = "lm_head", norms: Mapping[str, str] = PRE_NORMS
) -> list[Weight]:
    """A decoder with grouped queries and a gated MLP, its embedding and its output matrix."""
    layer, ours = f"{prefix}layers.{{layer}}.", "decoder/layers/"
    return [
        Weight("embedding", f"{prefix}embed_tokens.weight"),
        Weight("lm_head", f"{head}.weight"),
        *norm("decoder/final_norm", f"{prefix}norm"),
        *(weight for name, theirs in norms.items() for weight in norm(f"{ours}{name}", f"{layer}{theirs}")),
        *linear(f"{ours}query", f"{layer}self_attn.q_proj"),
        *linear(f"{ours}key", f"{layer}self_attn.k_proj"),
        *linear(f"{ours}value", f"{layer}self_attn.v_proj"),
        *linear(f"{ours}out", f"{layer}self_attn.o_proj"),
        *norm(f"{ours}query_norm", f"{layer}self_attn.q_norm"),
        *norm(f"{ours}key_norm", f"{layer}self_attn.k_norm"),
        *(
            weight
            for name in ("gate", "up", "down")
            for weight in linear(f"{ours}mlp/{name}", f"{layer}mlp.{name}_proj")
        ),
    ]


def decoder_sizes(text: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a decoder, as keywords of `TransformerConfig`."""
    heads, width = text["num_attention_heads"], text["hidden_size"]
    return {
        "width": width,
        "layers": text["num_hidden_layers"],
        "heads": heads,
        "kv_heads": text.get("num_key_value_heads") or heads,
        "head_dim": text.get("head_dim") or width // heads,
        "mlp": text["intermediate_size"],
        "norm_eps": text["rms_norm_eps"],
    }


def rotary_config(text: Mapping[str, Any], layout: str = "chunked") -> RotaryConfig:
    """Rotary positions, written as `rope_parameters` or, before, as `rope_theta` and `rope_scaling`.

    Raises:
        ValueError: a kind of scaling that is not known.
    """
    rope = text.get("rope_parameters") or {
        **(text.get("rope_scaling") or {}),
        "rope_theta": text["rope_theta"],
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "mrope", "linear", "llama3"):
        raise ValueError(
            f"rotary positions of type {kind!r} are not known; known are 'default', 'linear' and 'llama3'"
        )
    return RotaryConfig(
        rope["rope_theta"],
        tuple(rope.get("mrope_section", ())),
        layout,
        rope["factor"] if kind in ("linear", "llama3") else 1.0,
        _stretch_band(rope) if kind == "llama3" else (),
    )


def _stretch_band(rope: Mapping[str, Any]) -> tuple[float, float]:
    """Theirs are turns over the length of the first training's texts."""
    turn = 2 * math.pi / rope["original_max_position_embeddings"]
    return turn * rope["low_freq_factor"], turn * rope["high_freq_factor"]
