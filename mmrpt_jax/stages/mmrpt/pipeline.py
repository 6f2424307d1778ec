"""The whole method, once round: caption, score, mask, rl, evaluate."""

from ml_collections import ConfigDict

from mmrpt_jax.stages.checks import check_stages
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.caption import run_caption
from mmrpt_jax.stages.mmrpt.evaluate import headline_columns, measure
from mmrpt_jax.stages.mmrpt.mask import run_mask
from mmrpt_jax.stages.mmrpt.overlays import draw_overlays
from mmrpt_jax.stages.mmrpt.rl import run_arm
from mmrpt_jax.stages.mmrpt.score import run_score
from mmrpt_jax.stages.mmrpt.validate import check_config
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.results import evaluated, write_results
from mmrpt_jax.stages.run import Run
from mmrpt_jax.stages.workdir import open_run
from mmrpt_jax.training.processes import by_writer
from mmrpt_jax.training.stopping import NEVER, StopRequest


def run_experiment(config: ConfigDict, workdir: str, stop: StopRequest = NEVER) -> None:
    """Runs the stages of `config.stages` that are not complete in `workdir`; raises `StoppedError` if `stop` asks."""
    check_config(config)
    check_stages(config, workdir, _needs(config))
    arms = {name: ARMS[name] for name in config.arms}
    with open_run(config, workdir, model_config, stop) as run:
        folder = run.workdir
        if "caption" in config.stages:
            run.timed("caption", lambda: run_caption(run))
        if {"score", "mask"} & set(config.stages):
            _score_and_mask(run)
        if "rl" in config.stages:
            for name, arm in arms.items():
                masks = folder / "masks" / arm.masks
                run.timed(f"rl ({name})", lambda n=name, m=masks: run_arm(run, n, m, folder / "arms" / n))
        if "evaluate" in config.stages:
            evaluator = run.evaluator(batch_size=config.evaluate.batch_size)
            rows = [evaluated(run, name, lambda p, n=name: measure(run, evaluator, p, n)) for name in arms]
            run.log(write_results(folder, rows, headline_columns(rows), title=config.title))


def _score_and_mask(run: Run) -> None:
    """Stages 2 and 3; the base is let go of at their end, because every arm begins with a copy of its own."""
    config, folder, base = run.config, run.workdir, run.base()
    if "score" in config.stages:
        run.timed("score", lambda: run_score(run, base, folder / "scores"))
    if "mask" in config.stages:
        for method in _mask_methods(config):
            target = folder / "masks" / method
            run.timed(
                f"mask ({method})", lambda m=method, t=target: run_mask(run, base, folder / "scores", t, m)
            )
            by_writer(draw_overlays, run, folder / "scores", target, folder / "overlays" / method)


def _mask_methods(config: ConfigDict) -> list[str]:
    """How the arms of a config choose what they mask."""
    arms = [ARMS[name] for name in config.arms]
    return sorted({arm.masks for arm in arms if arm.method in ("supervised", "policy")})


def _needs(config: ConfigDict) -> dict[str, dict[str, list[str]]]:
    """What stages begin with, for `check_stages`."""
    return {
        "score": {"caption": ["base"]},
        "mask": {"score": ["scores"]},
        "rl": {"caption": ["base"], "mask": [f"masks/{method}" for method in _mask_methods(config)]},
        "evaluate": {"rl": [f"arms/{name}" for name in config.arms]},
    }
