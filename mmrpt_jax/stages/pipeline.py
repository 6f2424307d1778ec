"""The whole method, once round: caption, score, mask, rl, evaluate."""

import importlib.metadata
import json
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.arms import find_arm
from mmrpt_jax.stages.caption import run_caption
from mmrpt_jax.stages.evaluate import evaluate_arm, make_evaluator, write_results
from mmrpt_jax.stages.mask import run_mask
from mmrpt_jax.stages.overlays import draw_overlays
from mmrpt_jax.stages.rl import run_arm
from mmrpt_jax.stages.run import Run, model_config, open_tokenizer, write_whole
from mmrpt_jax.stages.score import run_score
from mmrpt_jax.stages.validate import ConfigError, check_config
from mmrpt_jax.training.metrics import MetricWriter

# What may differ between two starts in one folder: what is told and kept, and which parts run.
_MAY_CHANGE = ("title", "stages", "arms", "log_every", "save_every", "overlays", "compilation_cache")
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


def run_experiment(config: ConfigDict, workdir: str) -> None:
    """Runs the stages of `config.stages` that are not complete in `workdir`."""
    check_config(config)
    arms = {name: find_arm(name) for name in config.arms}
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    use_compilation_cache(config, folder)
    write_identity(config, folder)
    tokenizer = open_tokenizer(config, folder)
    with MetricWriter(folder) as writer:
        model, mesh = model_config(config, tokenizer.vocab_size), make_mesh(**config.mesh.to_dict())
        run = Run(config, folder, tokenizer, model, writer, mesh)
        if "caption" in config.stages:
            _timed(run, "caption", lambda: run_caption(run))
        if "score" in config.stages:
            base = run.weights(folder / "base" / "weights.safetensors")
            _timed(run, "score", lambda: run_score(run, base, folder / "scores"))
        if "mask" in config.stages:
            for method in sorted(
                {arm.masks for arm in arms.values() if arm.method in ("supervised", "policy")}
            ):
                target = folder / "masks" / method
                _timed(
                    run, f"mask ({method})", lambda m=method, t=target: run_mask(run, folder / "scores", t, m)
                )
                draw_overlays(run, folder / "scores", target, folder / "overlays" / method)
        if "rl" in config.stages:
            for name, arm in arms.items():
                masks = folder / "masks" / arm.masks
                _timed(run, f"rl ({name})", lambda n=name, m=masks: run_arm(run, n, m, folder / "arms" / n))
        if "evaluate" in config.stages:
            evaluator = make_evaluator(run)
            rows = [evaluate_arm(run, evaluator, name, folder / "arms" / name) for name in arms]
            run.log(write_results(run, rows))


def _timed(run: Run, name: str, stage) -> None:
    run.log(f"── {name}")
    start = time.monotonic()
    stage()
    run.log(f"   {time.monotonic() - start:.1f} s")


def _check_same_experiment(before: dict, now: dict, workdir: Path) -> None:
    for field in sorted(before.keys() | now.keys()):
        if field not in _MAY_CHANGE and before.get(field) != now.get(field):
            raise ConfigError(
                f"{workdir} holds an experiment with another config.{field}: go on with that, or name another folder"
            )


def use_compilation_cache(config: ConfigDict, workdir: Path) -> None:
    """Keeps compiled programs, so that a second start skips compilation."""
    folder = Path(config.compilation_cache) if config.compilation_cache else workdir / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def write_identity(config: ConfigDict, workdir: Path) -> None:
    """Writes the resolved config and the versions of what runs it.

    Raises:
        ConfigError: the folder holds another experiment.
    """
    path, resolved = workdir / "config.json", json.loads(config.to_json_best_effort())
    if path.exists():
        _check_same_experiment(json.loads(path.read_text()), resolved, workdir)
    write_whole(path, json.dumps(resolved, indent=2))
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions |= {"devices": [str(device) for device in jax.devices()], "seed": config.seed}
    (workdir / "versions.json").write_text(json.dumps(versions, indent=2))
