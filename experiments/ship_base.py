"""Puts a trained base model into the package, as bfloat16: `python -m experiments.ship_base --workdir=runs/base`.

A run of `mmrpt_scenes_*.py` becomes `mmrpt_jax/assets/scenes_base`, tokenizer included, a run of `lvrpo_scenes_base.py`
becomes `mmrpt_jax/assets/scenes_unified`, which uses the same tokenizer.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from ml_collections import ConfigDict

from mmrpt_jax.assets import SCENES_TOKENIZER, SCENES_WEIGHTS, UNIFIED_AUTOENCODER, UNIFIED_WEIGHTS
from mmrpt_jax.data import load_tokenizer
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.weights import load_weights, save_weights
from mmrpt_jax.reporting.command_line import Parser, run_command
from mmrpt_jax.stages.opening import model_config, unified_config
from mmrpt_jax.stages.workdir import demand_files


def ship(workdir: Path) -> str:
    """Writes the assets; returns a sentence about the weights.

    Raises:
        ConfigError: the folder holds no finished run of a base.
    """
    demand_files(workdir, "config.json", "tokenizer.json", "base/weights.safetensors")
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    vocab_size = load_tokenizer(workdir / "tokenizer.json").vocab_size
    if draws := config.method == "lvrpo":
        demand_files(workdir, "autoencoder.safetensors")
    model = unified_config(config, vocab_size) if draws else model_config(config, vocab_size)
    params = load_weights(workdir / "base" / "weights.safetensors", abstract_parameters(model))
    target = UNIFIED_WEIGHTS if draws else SCENES_WEIGHTS
    save_weights(target, params, dtype=jnp.bfloat16)
    if draws:
        shutil.copyfile(workdir / "autoencoder.safetensors", UNIFIED_AUTOENCODER)
    else:
        shutil.copyfile(workdir / "tokenizer.json", SCENES_TOKENIZER)
    return f"{target}: {target.stat().st_size / 2**20:.2f} MiB"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.ship_base", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run of a base config")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: ship(_parser().parse_args(arguments).workdir))


if __name__ == "__main__":
    sys.exit(main())
