"""What a run has trained as a checkpoint that other tools load: the published one, with weights of ours."""

import json
import shutil
from pathlib import Path
from typing import Any

from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.lora import merge_lora
from mmrpt_jax.models.peft_export import save_peft_adapter
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.published import Published, open_published
from mmrpt_jax.stages.run import Run

# What of a checkpoint's folder goes with weights: tokenizer, chat template, numbers of processor and generation.
_KEPT = (".json", ".jinja", ".txt", ".model")
_INDEX = ".index.json"


def export_model(run: Run, arm: str, directory: Path) -> None:
    """Writes an arm as a whole checkpoint; adapters are merged into what they stand beside.

    Raises:
        ConfigError: the run did not begin with a published checkpoint.
        FileExistsError: the directory holds weights already.
    """
    published, params = _published(run), run.arm(arm)
    if run.config.train.lora.rank:
        params = merge_lora(params, _lora(run))
    write_weights(directory, published.weight_table, params)
    for path in sorted(published.folder.iterdir()):
        if path.suffix in _KEPT and not path.name.endswith(_INDEX):
            shutil.copyfile(path, directory / path.name)
    numbers = _with_dtype(published.numbers, run.config.train.param_dtype)
    (directory / "config.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def export_adapter(run: Run, arm: str, directory: Path) -> None:
    """Writes the adapters of an arm in PEFT's format.

    Raises:
        ConfigError: the run did not begin with a published checkpoint, or has no adapters.
        ValueError: an adapted kernel has no tensors of its own in the checkpoint.
    """
    published = _published(run)
    if not run.config.train.lora.rank:
        raise ConfigError(f"{run.workdir} trained no adapters: export the whole model")
    table = published.family.module_table(published.model)
    save_peft_adapter(directory, run.arm(arm), _lora(run), table, base=run.config.init.hf)


def _published(run: Run) -> Published:
    """The checkpoint that a run began with, which `transformers` must know."""
    if not run.config.init.hf:
        raise ConfigError(
            f"{run.workdir} began with a model of our own, which no other library knows: its weights are in "
            "arms/*/weights.safetensors, under the names of its parameters"
        )
    published = open_published(run.config.init.hf)
    if not isinstance(published, Published):
        raise ConfigError(
            f"{run.workdir} began with a checkpoint that draws, which `transformers` has no class for: its weights are "
            "in arms/*/weights.safetensors, under the names of our parameters"
        )
    return published


def _lora(run: Run) -> LoraConfig:
    lora = run.config.train.lora
    return LoraConfig(lora.rank, lora.alpha, tuple(lora.targets))


def _with_dtype(numbers: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json that says in which type weights are now, wherever it says so."""
    return {
        name: _with_dtype(value, dtype) if isinstance(value, dict) else value
        for name, value in numbers.items()
    } | {name: dtype for name in ("dtype", "torch_dtype") if name in numbers}
