"""A finished run of LVRPO, opened to draw with what it has trained."""

from pathlib import Path

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.finished import open_finished, read_config
from mmrpt_jax.stages.opening import unified_config
from mmrpt_jax.stages.run import Run
from mmrpt_jax.stages.workdir import demand_files


def open_drawing_run(workdir: str | Path) -> Run:
    """The run in a folder; nothing in it is changed.

    Raises:
        ConfigError: the folder holds no run, one whose model does not draw, or one for other devices.
    """
    folder, config = Path(workdir), read_config(workdir)
    if (method := config.get("method", "mmrpt")) != "lvrpo":
        raise ConfigError(
            f"{folder} holds a run of {method!r}, whose model does not draw: name one of 'lvrpo'"
        )
    if config.latent.autoencoder == "linear":
        demand_files(folder, "autoencoder.safetensors")
    return open_finished(folder, unified_config)
