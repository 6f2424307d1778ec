"""A finished run, opened to use what it has trained; nothing in its folder is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.completion import is_complete
from mmrpt_jax.stages.opening import open_processor
from mmrpt_jax.stages.run import Run
from mmrpt_jax.stages.workdir import check_same_beginning, demand_files


def read_config(workdir: str | Path) -> ConfigDict:
    """The config of the run in a folder.

    Raises:
        ConfigError: the folder holds no run of one seed.
    """
    folder = Path(workdir)
    demand_files(folder, "config.json")
    return ConfigDict(json.loads((folder / "config.json").read_text()))


def open_finished(
    workdir: str | Path, model_of: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig]
) -> Run:
    """The run in a folder, as its `config.json` and its tokenizer describe it.

    Args:
        workdir: the folder.
        model_of: the model that a config and a number of token ids describe.

    Raises:
        ConfigError: the folder holds no run, or one for other devices.
    """
    folder, config = Path(workdir), read_config(workdir)
    if not config.init.hf:
        demand_files(folder, "tokenizer.json")
    try:
        mesh = make_mesh(**config.mesh.to_dict())
    except ValueError as error:
        raise ConfigError(
            f"{folder}: the config.mesh of the run does not suit this machine: {error}"
        ) from None
    check_same_beginning(config, folder)
    try:
        processor = open_processor(config, folder)
        # Of how it was trained, nothing matters to what it says, and its kernel may be for another machine.
        with config.unlocked():
            config.train.update(attention="xla", remat="none")
        model = model_of(config, processor.tokenizer.vocab_size)
    except ValueError as error:
        raise ConfigError(f"{folder}: what the run began with cannot be read any more: {error}") from error
    return Run(config, folder, processor, model, None, mesh)


def trained_arm(run: Run, arm: str) -> Any:
    """The parameters of an arm, placed on the mesh.

    Raises:
        ConfigError: there is no such arm, or its training is not finished; the message names those there are.
    """
    check_arm(run, arm)
    return run.arm(arm)


def check_arm(run: Run, arm: str) -> None:
    """Checks that an arm is finished; raises as `trained_arm`."""
    trained = sorted(path.name for path in run.workdir.glob("arms/*") if is_complete(path))
    if arm not in trained:
        there = f"trained are {', '.join(trained)}" if trained else "none is trained yet"
        raise ConfigError(f"{run.workdir} has no weights of an arm {arm!r}: {there}")
