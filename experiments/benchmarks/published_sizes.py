"""Models of published sizes, without their weights."""

from mmrpt_jax.models import VLMConfig
from mmrpt_jax.models.families import qwen2_5_vl

_VISION = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": (7, 15, 23, 31),
    "temporal_patch_size": 2,
}
_TEXT = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "use_sliding_window": False,
}
# As their `config.json` says.
_SIZES = {
    "qwen2_5_vl_3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_attention_heads": 16,
        "num_hidden_layers": 36,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "qwen2_5_vl_7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "vocab_size": 152064,
    },
}
NAMES = tuple(_SIZES)


def published_model(name: str) -> VLMConfig:
    """The model of a name of `NAMES`, in float32."""
    return qwen2_5_vl.model_config(_TEXT | _SIZES[name] | {"vision_config": _VISION})
