"""Adapters in PEFT's format: a folder that `peft.PeftModel.from_pretrained` lays over the published base."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.lora import adapter_only
from mmrpt_jax.models.paths import path_of
from mmrpt_jax.models.weight_table import TRANSPOSE, Weight


def save_peft_adapter(
    directory: str | os.PathLike[str],
    params: dict,
    lora: LoraConfig,
    table: Sequence[Weight],
    *,
    base: str = "",
) -> None:
    """Writes `adapter_model.safetensors` and `adapter_config.json`.

    Args:
        directory: is made if it is not there.
        params: with adapters; the rest is passed over.
        lora: of these adapters.
        table: how a loaded model of theirs calls the adapted kernels.
        base: where the base is published, for those who load the adapter alone.

    Raises:
        ValueError: an adapted kernel has no tensors of its own in the checkpoint.
    """
    folder, tensors = Path(directory), _tensors(adapter_only(params), table)
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


def _tensors(adapters: dict, table: Sequence[Weight]) -> dict[str, np.ndarray]:
    """PEFT's name -> [rank, in] of an A, or [out, rank] of a B."""
    # A kernel that is a part of a fused matrix, or laid out otherwise, has no adapter of its own there.
    own = {weight.ours: weight for weight in table if weight.layout == TRANSPOSE and weight.part == (0, 1)}
    tensors = {}
    for key, leaf in jax.tree.leaves_with_path(adapters):
        place, _, side = path_of(key).rpartition("/lora_")
        kernel = f"{place}/kernel"
        if kernel not in own:
            raise ValueError(
                f"{kernel} has no tensors of its own in the published checkpoint: export merged weights"
            )
        layers = own[kernel].layers or range(len(leaf))
        for number, layer in zip(layers, np.asarray(leaf), strict=True):
            module = own[kernel].theirs.format(layer=number).removesuffix(".weight")
            tensors[f"base_model.model.{module}.lora_{side.upper()}.weight"] = np.ascontiguousarray(layer.T)
    return tensors
