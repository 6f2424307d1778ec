"""What a run has trained as a checkpoint that other tools load: the published one, with weights of ours."""

import json
import shutil
from pathlib import Path
from typing import Any

from mmrpt_jax.models.checkpoint_files import WEIGHTS
from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.hub import HUB
from mmrpt_jax.models.json_file import read_json_object
from mmrpt_jax.models.lora import merge_lora
from mmrpt_jax.models.peft_export import save_peft_adapter
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.published import Published, open_published
from mmrpt_jax.stages.published_unified import PublishedUnified
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
    options = {"others": published.fixed_tensors, "max_shard_bytes": published.max_shard_bytes}
    write_weights(directory, published.weight_table, params, **options)
    if (directory / WEIGHTS).exists():
        (directory / WEIGHTS).rename(directory / published.weights_name)
    for path in sorted(published.folder.iterdir()):
        if (path.suffix in _KEPT and not path.name.endswith(_INDEX)) or path.name in published.companions:
            shutil.copyfile(path, directory / path.name)
    for path in directory.glob("*config.json"):
        numbers = read_json_object(path)
        said = _with_dtype(numbers, run.config.train.param_dtype)
        if said != numbers:
            path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def export_adapter(run: Run, arm: str, directory: Path) -> None:
    """Writes the adapters of an arm in PEFT's format.

    Raises:
        ConfigError: the run did not begin with a published checkpoint, or has no adapters.
        ValueError: an adapted kernel has no tensors of its own in the checkpoint.
    """
    published = _published(run)
    if not run.config.train.lora.rank:
        raise ConfigError(f"{run.workdir} trained no adapters: export the whole model")
    base = run.config.init.hf.removeprefix(HUB)
    save_peft_adapter(directory, run.arm(arm), _lora(run), published.module_table, base=base)


def _published(run: Run) -> Published | PublishedUnified:
    if not run.config.init.hf:
        raise ConfigError(
            f"{run.workdir} began with a model of our own, which no other library knows: its weights are in "
            "arms/*/weights.safetensors, under the names of its parameters"
        )
    return open_published(run.config.init.hf)


def _lora(run: Run) -> LoraConfig:
    lora = run.config.train.lora
    return LoraConfig(lora.rank, lora.alpha, tuple(lora.targets))


def _with_dtype(numbers: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A config.json that says in which type weights are now, wherever it says so."""
    return {
        name: _with_dtype(value, dtype) if isinstance(value, dict) else value
        for name, value in numbers.items()
    } | {name: dtype for name in ("dtype", "torch_dtype") if name in numbers}
