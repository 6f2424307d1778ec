"""The whole method, once round: pretrain, align, evaluate."""

from ml_collections import ConfigDict

from mmrpt_jax.stages.checks import check_stages
from mmrpt_jax.stages.lvrpo.evaluate import headline_columns, measure
from mmrpt_jax.stages.lvrpo.examiner import open_examiner
from mmrpt_jax.stages.lvrpo.pretrain import run_pretrain
from mmrpt_jax.stages.lvrpo.rl import run_arm
from mmrpt_jax.stages.lvrpo.showing import show_arms
from mmrpt_jax.stages.lvrpo.validate import check_config
from mmrpt_jax.stages.opening import unified_config
from mmrpt_jax.stages.results import evaluated, write_results
from mmrpt_jax.stages.workdir import open_run
from mmrpt_jax.training.stopping import NEVER, StopRequest


def run_experiment(config: ConfigDict, workdir: str, stop: StopRequest = NEVER) -> None:
    """Runs the stages of `config.stages` that are not complete in `workdir`; raises `StoppedError` if `stop` asks."""
    check_config(config)
    arms = [f"arms/{name}" for name in config.arms]
    check_stages(config, workdir, {"align": {"pretrain": ["base"]}, "evaluate": {"align": arms}})
    with open_run(config, workdir, unified_config, stop) as run:
        folder = run.workdir
        if "pretrain" in config.stages:
            run.timed("pretrain", lambda: run_pretrain(run))
        if "align" in config.stages:
            for name in config.arms:
                run.timed(f"align ({name})", lambda n=name: run_arm(run, n, folder / "arms" / n))
        if "evaluate" in config.stages:
            examiner, rows = open_examiner(run), []
            for name in config.arms:
                run.timed(
                    f"evaluate ({name})",
                    lambda n=name: rows.append(
                        evaluated(run, n, lambda params: measure(run, examiner, params))
                    ),
                )
            show_arms(run, examiner, folder / "drawings.png")
            run.log(write_results(folder, rows, headline_columns(rows), title=config.title))
