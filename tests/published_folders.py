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
from mmrpt_jax.models.weight_table import path_name
from tests.image_text_parity_test import QWEN_SPECIAL, QWEN_TEMPLATE

VOCAB = 420


def write_qwen2_5_vl(folder: Path, write_tokenizer: Callable) -> Path:
    """A Qwen2.5-VL that sees pictures of 64 x 64 pixels as 16 tokens."""
    write_tokenizer(
        folder, special=QWEN_SPECIAL, chat_template=QWEN_TEMPLATE, eos="<|im_end|>", vocab_size=VOCAB
    )
    ids = {
        name: QWEN_SPECIAL.index(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 1, 2]},
            "bos_token_id": None,
            "eos_token_id": QWEN_SPECIAL.index("<|im_end|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    ).save_pretrained(folder)
    numbers = {"patch_size": 8, "merge_size": 2, "min_pixels": 64 * 64, "max_pixels": 64 * 64}
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    _write(folder / "preprocessor_config.json", numbers | processor)
    return _complete(folder, QWEN_SPECIAL.index("<|im_end|>"))


def _complete(folder: Path, end: int) -> Path:
    """Adds what generation stops at, and weights."""
    _write(folder / "generation_config.json", {"eos_token_id": [end]})
    numbers = json.loads((folder / "config.json").read_text())
    family = find_family(numbers)
    model, rng = family.model_config(numbers), np.random.default_rng(0)

    def random(path, leaf):
        scale = 1.0 if path_name(path).endswith("scale") else 0.0
        return (scale + rng.normal(0, 0.1, leaf.shape)).astype(np.float32)

    params = jax.tree.map_with_path(random, abstract_parameters(model))
    write_weights(folder, family.weight_table(model), params)
    return folder


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))
