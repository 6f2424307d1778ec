"""Puts a trained base model into the package, as bfloat16: `python -m experiments.ship_base --workdir=runs/base`.

A run of `mmrpt_scenes_*.py` becomes `mmrpt_jax/assets/scenes_base`, tokenizer included, a run of `lvrpo_scenes_base.py`
becomes `mmrpt_jax/assets/scenes_unified`, which uses the same tokenizer.
"""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
from absl import app, flags
from ml_collections import ConfigDict

from mmrpt_jax.assets import SCENES_TOKENIZER, SCENES_WEIGHTS, UNIFIED_AUTOENCODER, UNIFIED_WEIGHTS
from mmrpt_jax.data import load_tokenizer
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.weights import load_weights, save_weights
from mmrpt_jax.stages.run import model_config, unified_config

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run of a base config.", required=True)


def main(_: list[str]) -> None:
    """Entry point."""
    workdir = Path(_WORKDIR.value)
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    vocab_size = load_tokenizer(workdir / "tokenizer.json").vocab_size
    draws = config.method == "lvrpo"
    model = unified_config(config, vocab_size) if draws else model_config(config, vocab_size)
    params = load_weights(workdir / "base" / "weights.safetensors", abstract_parameters(model))
    target = UNIFIED_WEIGHTS if draws else SCENES_WEIGHTS
    save_weights(target, params, dtype=jnp.bfloat16)
    if draws:
        shutil.copyfile(workdir / "autoencoder.safetensors", UNIFIED_AUTOENCODER)
    else:
        shutil.copyfile(workdir / "tokenizer.json", SCENES_TOKENIZER)
    print(f"{target}: {target.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    app.run(main)
