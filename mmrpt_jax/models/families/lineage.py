"""What families have in common: decoders with the names that Llama gave, and how a `config.json` says things."""

from collections.abc import Mapping
from typing import Any

from mmrpt_jax.models.config import RotaryConfig
from mmrpt_jax.models.weight_table import AS_IS, TRANSPOSE, Weight

# Their names of activations, and ours.
ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def linear(ours: str, theirs: str, **options: Any) -> list[Weight]:
    """A matrix with its bias; an entry that a model has no weight for is not used."""
    return [
        Weight(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSE, **options),
        Weight(f"{ours}/bias", f"{theirs}.bias", AS_IS, **options),
    ]


def norm(ours: str, theirs: str) -> list[Weight]:
    """A norm's scale, and its bias if it has one."""
    return [Weight(f"{ours}/scale", f"{theirs}.weight"), Weight(f"{ours}/bias", f"{theirs}.bias")]


def fused_attention(ours: str, theirs: str) -> list[Weight]:
    """Queries, keys and values that lie in one matrix, one above the other."""
    names = enumerate(("query", "key", "value"))
    return [weight for index, name in names for weight in linear(f"{ours}/{name}", theirs, part=(index, 3))]


def decoder_weights(prefix: str, *, head: str = "lm_head") -> list[Weight]:
    """A pre-norm decoder with grouped queries and a gated MLP, its embedding and its output matrix."""
    layer, ours = f"{prefix}layers.{{layer}}.", "decoder/layers/"
    return [
        Weight("embedding", f"{prefix}embed_tokens.weight"),
        Weight("lm_head", f"{head}.weight"),
        *norm("decoder/final_norm", f"{prefix}norm"),
        *norm(f"{ours}attention_norm", f"{layer}input_layernorm"),
        *linear(f"{ours}query", f"{layer}self_attn.q_proj"),
        *linear(f"{ours}key", f"{layer}self_attn.k_proj"),
        *linear(f"{ours}value", f"{layer}self_attn.v_proj"),
        *linear(f"{ours}out", f"{layer}self_attn.o_proj"),
        *norm(f"{ours}query_norm", f"{layer}self_attn.q_norm"),
        *norm(f"{ours}key_norm", f"{layer}self_attn.k_norm"),
        *norm(f"{ours}mlp_norm", f"{layer}post_attention_layernorm"),
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
    if kind not in ("default", "mrope", "linear"):
        raise ValueError(f"rotary positions of type {kind!r} are not known; known are 'default' and 'linear'")
    sections = tuple(rope.get("mrope_section", ()))
    return RotaryConfig(
        rope["rope_theta"], sections, layout, rope.get("factor", 1.0) if kind == "linear" else 1.0
    )
