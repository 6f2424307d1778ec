"""Puts a trained base model into the package: `python -m experiments.ship_base --workdir=runs/base`.

Writes bfloat16 weights and the tokenizer to `mmrpt_jax/assets/scenes_base`.
"""

import shutil
from pathlib import Path

import jax.numpy as jnp
from absl import app, flags

from experiments.configs.mmrpt_scenes_base import get_config
from mmrpt_jax.assets import SCENES_TOKENIZER, SCENES_WEIGHTS
from mmrpt_jax.data import load_tokenizer
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.weights import load_weights, save_weights
from mmrpt_jax.stages.run import model_config

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run of mmrpt_scenes_base.py.", required=True)


def main(_: list[str]) -> None:
    """Entry point."""
    workdir = Path(_WORKDIR.value)
    model = model_config(get_config(), load_tokenizer(workdir / "tokenizer.json").vocab_size)
    params = load_weights(workdir / "base" / "weights.safetensors", abstract_parameters(model))
    save_weights(SCENES_WEIGHTS, params, dtype=jnp.bfloat16)
    shutil.copyfile(workdir / "tokenizer.json", SCENES_TOKENIZER)
    print(f"{SCENES_WEIGHTS}: {SCENES_WEIGHTS.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    app.run(main)
