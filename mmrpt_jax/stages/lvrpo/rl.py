"""Stage 2: every arm is trained here, from one base, with one budget."""

from pathlib import Path

from mmrpt_jax.stages.completion import is_complete, mark_complete
from mmrpt_jax.stages.lvrpo.align import align
from mmrpt_jax.stages.lvrpo.arms import ARMS
from mmrpt_jax.stages.lvrpo.budget import arm_steps, step_flops
from mmrpt_jax.stages.lvrpo.pretrain import imitate
from mmrpt_jax.stages.run import Run


def run_arm(run: Run, name: str, directory: Path) -> None:
    """Trains one arm and writes its weights.

    Args:
        run: the experiment.
        name: a name of `ARMS`.
        directory: where to write.
    """
    if is_complete(directory):
        return
    arm, config = ARMS[name], run.config
    params, steps = run.base(), arm_steps(config, run.model, arm)
    if arm.method == "imitation":
        options = {"steps": steps, "stage": name, "directory": directory, "suffix": "_policy"}
        params = imitate(run, params, config.sft, **options)
    elif arm.method == "policy":
        params = align(run, params, arm, steps=steps, name=name, directory=directory)
    if steps:
        run.save(directory / "weights.safetensors", params)
    flops = steps * step_flops(config, run.model, arm) if steps else 0.0
    mark_complete(directory, {"arm": name, "flops": flops, "steps": steps})
