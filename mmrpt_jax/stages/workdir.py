"""The folder of an experiment: what runs in it is written down, and nothing else may run there."""

import contextlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models.checkpoint_files import fingerprint
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.hub import resolve_checkpoint
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.completion import write_whole
from mmrpt_jax.stages.opening import open_processor
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.metrics import MetricWriter
from mmrpt_jax.training.processes import agreed, by_writer, for_writer, writer_first
from mmrpt_jax.training.stopping import NEVER, StopRequest

# What may differ between two starts in one folder: what is told and kept, which parts run, and on what.
_MAY_CHANGE = ("title", "stages", "arms", "log_every", "save_every", "overlays", "compilation_cache", "mesh")
# Limits that end a run, where who raises one goes on; and ways to compute the same.
_MAY_CHANGE_WITHIN = (
    "train.max_skipped",
    "train.attention",
    "train.remat",
    "rl.reward_timeout",
    "align.reward_timeout",
)
_PACKAGES = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "tokenizers",
    "numpy",
)


def open_workdir(config: ConfigDict, workdir: str | Path) -> Path:
    """Makes the folder, or comes back to it: compiled programs are kept, config and versions written down.

    Raises:
        ConfigError: it is a file, or the folder holds another experiment.
    """
    folder = Path(workdir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder for the run")
    folder.mkdir(parents=True, exist_ok=True)
    _keep_compiled(config, folder)
    write_identity(config, folder)
    return folder


@contextlib.contextmanager
def open_run(
    config: ConfigDict,
    workdir: str | Path,
    model_of: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig],
    stop: StopRequest = NEVER,
) -> Iterator[Run]:
    """The run of a config in its folder; its metrics are written while it is open.

    Args:
        config: checked.
        workdir: made if it is not there.
        model_of: the model that a config and a number of token ids describe.
        stop: may ask its training to stop.

    Raises:
        ConfigError: the folder holds another experiment, or what it began with is another checkpoint now.
    """
    folder = open_workdir(config, workdir)
    check_same_beginning(config, folder)
    with writer_first("tokenizer"):
        processor = open_processor(config, folder)
    mesh = make_mesh(**config.mesh.to_dict())
    # Models keep their activations split over it.
    with contextlib.closing(for_writer(MetricWriter, folder)) as writer, jax.set_mesh(mesh):
        model = model_of(config, processor.tokenizer.vocab_size)
        yield Run(config, folder, processor, model, writer, mesh, stop)


def demand_files(folder: Path, *names: str) -> None:
    """Checks that a finished run left `names` in its folder.

    Raises:
        ConfigError: the folder holds no such run.
    """
    for name in names:
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} holds no finished run: there is no {name} in it")


def write_identity(config: ConfigDict, workdir: Path) -> None:
    """Writes the resolved config and the versions of what runs it.

    Raises:
        ConfigError: the folder holds another experiment.
    """
    path, resolved = workdir / "config.json", json.loads(config.to_json_best_effort())
    if path.exists():
        _check_same_experiment(json.loads(path.read_text()), resolved, workdir)
    by_writer(write_whole, path, json.dumps(resolved, indent=2))
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {"devices": [str(device) for device in jax.devices()], "seed": config.seed}
    by_writer(write_whole, workdir / "versions.json", json.dumps(versions, indent=2))


def _check_same_experiment(before: dict, now: dict, workdir: Path) -> None:
    before, now = what_must_stay(before), what_must_stay(now)
    for field in sorted(before.keys() | now.keys()):
        if field not in _MAY_CHANGE and before.get(field) != now.get(field):
            raise ConfigError(
                f"{workdir} holds an experiment with another config.{field}: go on with that, or name another folder"
            )


def what_must_stay(resolved: dict) -> dict:
    """A resolved config but for fields of its sections that may change."""
    kept = {name: dict(part) if isinstance(part, dict) else part for name, part in resolved.items()}
    for section, field in (path.split(".") for path in _MAY_CHANGE_WITHIN):
        if isinstance(kept.get(section), dict):
            kept[section].pop(field, None)
    return kept


def check_same_beginning(config: ConfigDict, workdir: Path) -> None:
    """What trains is written without what it rests on, which must therefore stay what it was.

    Raises:
        ConfigError: another checkpoint stands where the run found its own.
    """
    if not config.init.hf:
        return
    path, found = workdir / "begun_with.json", fingerprint(resolve_checkpoint(config.init.hf))
    if not agreed(path.exists()):
        by_writer(write_whole, path, json.dumps({"hf": config.init.hf, "fingerprint": found}, indent=2))
    elif json.loads(path.read_text())["fingerprint"] != found:
        raise ConfigError(
            f"{workdir} began with another checkpoint than the one in {config.init.hf}: put that one back, or name "
            "another folder for the run"
        )


def _keep_compiled(config: ConfigDict, workdir: Path) -> None:
    """A second start skips compilation."""
    folder = Path(config.compilation_cache) if config.compilation_cache else workdir / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
