"""Models of published sizes, without their weights: what their `config.json` says, put down here."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from mmrpt_jax.models import VLMConfig
from mmrpt_jax.models.families import bagel, qwen2_5_vl
from mmrpt_jax.models.unified_config import UnifiedConfig

_QWEN_TOWER = {
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
_QWEN_TEXT = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "use_sliding_window": False,
}
_TEXT_3B = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
_TEXT_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}
# SigLIP so400m without its last layer, on images of up to 70 x 70 patches.
_BAGEL_TOWER = {
    "hidden_size": 1152,
    "image_size": 980,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 26,
    "patch_size": 14,
}
_BAGEL_LAYERS = range(_BAGEL_TOWER["num_hidden_layers"])
# Of its tensors, those whose shapes tell a size.
_BAGEL_SHAPES = {
    "vae2llm.weight": (3584, 64),
    "latent_pos_embed.pos_embed": (64 * 64, 3584),
    "vit_model.vision_model.embeddings.position_embedding.weight": (70 * 70, 1152),
    **{f"vit_model.vision_model.encoder.layers.{i}.layer_norm1.weight": (1152,) for i in _BAGEL_LAYERS},
}


def _qwen(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text_config": _QWEN_TEXT | sizes,
        "vision_config": _QWEN_TOWER | {"out_hidden_size": sizes["hidden_size"]},
        "tie_word_embeddings": sizes["tie_word_embeddings"],
    }


def _bagel() -> UnifiedConfig:
    text = {name: _QWEN_TEXT[name] for name in ("hidden_act", "rms_norm_eps", "rope_theta")}
    numbers = {"llm_config": text | _TEXT_7B, "vit_config": _BAGEL_TOWER}
    # `<|vision_start|>` and `<|vision_end|>` of Qwen2.5's tokenizer.
    return bagel.model_config(numbers, _BAGEL_SHAPES, image_marks=(151652, 151653), image_size=(512, 512))


# The files themselves, as `transformers` reads them too.
QWEN2_5_VL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"qwen2_5_vl_3b": _qwen(_TEXT_3B), "qwen2_5_vl_7b": _qwen(_TEXT_7B)}
)
# Each in float32, without adapters.
PUBLISHED: Mapping[str, Callable[[], VLMConfig | UnifiedConfig]] = MappingProxyType(
    {name: functools.partial(qwen2_5_vl.model_config, numbers) for name, numbers in QWEN2_5_VL.items()}
    | {"bagel_7b": _bagel}
)
