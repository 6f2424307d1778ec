"""Adapters in PEFT's format: a folder that `peft.PeftModel.from_pretrained` lays over the published base."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.lora import adapter_only
from mmrpt_jax.models.paths import path_of


def save_peft_adapter(
    directory: str | os.PathLike[str],
    params: dict,
    lora: LoraConfig,
    names: Mapping[str, Sequence[str]],
    *,
    base: str = "",
) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`.

    Args:
        directory: is made if it is not there.
        params: with adapters; the rest is passed over.
        lora: of these adapters.
        names: path of a kernel -> its tensors in the published checkpoint, layer by layer:
            `decoder/layers/query/kernel` -> `model.layers.0.self_attn.q_proj.weight` and so on. A tensor is the
            transposed kernel of one layer.
        base: where the base is published, for those who load the adapter alone.

    Raises:
        ValueError: an adapted kernel has no tensors of its own in the checkpoint.
    """
    folder, tensors = Path(directory), _tensors(adapter_only(params), names)
    modules = sorted({name.rpartition(".lora_")[0].removeprefix("base_model.model.") for name in tensors})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    # Whole names: a tower may have projections that are called like those of the decoder.
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def _tensors(adapters: dict, names: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """PEFT's name -> [rank, in] of an A, or [out, rank] of a B."""
    tensors = {}
    for key, leaf in jax.tree.leaves_with_path(adapters):
        place, _, side = path_of(key).rpartition("/lora_")
        kernel = f"{place}/kernel"
        if kernel not in names:
            raise ValueError(
                f"{kernel} has no tensors of its own in the published checkpoint: export merged weights"
            )
        for name, layer in zip(names[kernel], np.asarray(leaf), strict=True):
            module = name.removesuffix(".weight")
            tensors[f"base_model.model.{module}.lora_{side.upper()}.weight"] = np.ascontiguousarray(layer.T)
    return tensors
