"""Tiny directories as the Hugging Face hub has them, made without torch, with random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import transformers

from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.families.registry import find_family
from mmrpt_jax.models.paths import path_of
from tests.image_text_parity_test import (
    GEMMA_SPECIAL,
    GEMMA_TEMPLATE,
    IDEFICS_SPECIAL,
    IDEFICS_TEMPLATE,
    QWEN_SPECIAL,
    QWEN_TEMPLATE,
)

VOCAB = 420
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
}
# What begins as SigLIP: 4 x 4 patches of 8 x 8 pixels.
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def write_qwen2_5_vl(folder: Path, write_tokenizer: Callable) -> Path:
    """A Qwen2.5-VL that sees pictures of 64 x 64 pixels as 16 tokens."""
    write_tokenizer(
        folder, special=QWEN_SPECIAL, chat_template=QWEN_TEMPLATE, eos="<|im_end|>", vocab_size=VOCAB
    )
    ids = {
        f"{name}_token_id": QWEN_SPECIAL.index(f"<|{token}|>")
        for name, token in [("image", "image_pad"), ("video", "video_pad")]
        + [(name, name) for name in ("vision_start", "vision_end")]
    }
    end = QWEN_SPECIAL.index("<|im_end|>")
    rope = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 1, 2]}
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 32,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    transformers.Qwen2_5_VLConfig(
        text_config=TEXT | {"rope_parameters": rope, "eos_token_id": end}, vision_config=vision, **ids
    ).save_pretrained(folder)
    numbers = {"patch_size": 8, "merge_size": 2, "min_pixels": 64 * 64, "max_pixels": 64 * 64}
    types = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    return _complete(folder, end, numbers | types)


def write_smolvlm(folder: Path, write_tokenizer: Callable) -> Path:
    """A SmolVLM that sees pictures as up to 2 x 2 crops and the whole, of 4 tokens each."""
    write_tokenizer(
        folder,
        special=IDEFICS_SPECIAL,
        chat_template=IDEFICS_TEMPLATE,
        eos="<end_of_utterance>",
        vocab_size=VOCAB,
    )
    end = IDEFICS_SPECIAL.index("<end_of_utterance>")
    transformers.SmolVLMConfig(
        text_config=TEXT | {"model_type": "llama", "pad_token_id": 0, "eos_token_id": end},
        vision_config=TOWER,
        scale_factor=2,
        image_token_id=IDEFICS_SPECIAL.index("<image>"),
        pad_token_id=0,
    ).save_pretrained(folder)
    numbers = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    types = {"image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor"}
    return _complete(folder, end, numbers | types)


def write_gemma3(folder: Path, write_tokenizer: Callable) -> Path:
    """A Gemma 3 that sees pictures of 32 x 32 pixels as 4 tokens, normalised by numbers of its own."""
    write_tokenizer(
        folder, special=GEMMA_SPECIAL, chat_template=GEMMA_TEMPLATE, eos="<end_of_turn>", vocab_size=VOCAB
    )
    end = GEMMA_SPECIAL.index("<end_of_turn>")
    kinds = ["sliding_attention", "full_attention"]
    layers = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16, "layer_types": kinds}
    transformers.Gemma3Config(
        text_config=TEXT | layers | {"pad_token_id": 0, "eos_token_id": end},
        vision_config=TOWER | {"vision_use_head": False},
        mm_tokens_per_image=4,
        **{
            f"{name}_token_index": GEMMA_SPECIAL.index(f"<{token}>")
            for name, token in (
                ("boi", "start_of_image"),
                ("eoi", "end_of_image"),
                ("image", "image_soft_token"),
            )
        },
    ).save_pretrained(folder)
    numbers = {"size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.3] * 3}
    types = {"image_processor_type": "Gemma3ImageProcessor", "processor_class": "Gemma3Processor"}
    return _complete(folder, end, numbers | types)


def _complete(folder: Path, end: int, processor: dict) -> Path:
    """Adds the numbers of the image processor, what generation stops at, and weights."""
    _write(folder / "preprocessor_config.json", processor)
    _write(folder / "generation_config.json", {"eos_token_id": [end]})
    numbers = json.loads((folder / "config.json").read_text())
    family = find_family(numbers)
    model, rng = family.model_config(numbers), np.random.default_rng(0)

    def random(path, leaf):
        scale = 1.0 if path_of(path).endswith("scale") else 0.0
        return (scale + rng.normal(0, 0.1, leaf.shape)).astype(np.float32)

    params = jax.tree.map_with_path(random, abstract_parameters(model))
    write_weights(folder, family.weight_table(model), params)
    return folder


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
