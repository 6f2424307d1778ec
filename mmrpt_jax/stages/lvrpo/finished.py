"""A finished run, opened to draw with what it has trained; nothing in its folder is changed."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.run import Run, fixed_processor, unified_config
from mmrpt_jax.stages.workdir import demand_files


def open_finished(workdir: str | Path) -> Run:
    """The run in a folder, as its `config.json` and `tokenizer.json` describe it.

    Raises:
        ConfigError: the folder holds no run, one whose model does not draw, or one for other devices.
    """
    folder = Path(workdir)
    demand_files(folder, "config.json", "tokenizer.json")
    config = ConfigDict(json.loads((folder / "config.json").read_text()))
    if (method := config.get("method", "mmrpt")) != "lvrpo":
        raise ConfigError(
            f"{folder} holds a run of {method!r}, whose model does not draw: name one of 'lvrpo'"
        )
    try:
        mesh = make_mesh(**config.mesh.to_dict())
    except ValueError as error:
        raise ConfigError(
            f"{folder}: the config.mesh of the run does not suit this machine: {error}"
        ) from None
    if config.latent.autoencoder == "linear":
        demand_files(folder, "autoencoder.safetensors")
    tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
    model = unified_config(config, tokenizer.vocab_size)
    return Run(config, folder, fixed_processor(config, tokenizer, model.vlm), model, None, mesh)


def trained_arm(run: Run, arm: str) -> Any:
    """The parameters of an arm, placed on the mesh.

    Raises:
        ConfigError: there is no such arm, or its training is not finished; the message names those there are.
    """
    trained = sorted(path.parent.name for path in run.workdir.glob("arms/*/weights.safetensors"))
    if arm not in trained:
        there = f"trained are {', '.join(trained)}" if trained else "none is trained yet"
        raise ConfigError(f"{run.workdir} has no weights of an arm {arm!r}: {there}")
    return run.weights(run.workdir / "arms" / arm / "weights.safetensors")
