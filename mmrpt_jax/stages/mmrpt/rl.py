"""Stage 4: reconstruct what was cut out. Every arm is trained here, from one base, with one budget."""

from pathlib import Path
from typing import Any

from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import join, open_sidecar
from mmrpt_jax.stages.completion import is_complete, mark_complete
from mmrpt_jax.stages.mmrpt.arms import ARMS, Arm
from mmrpt_jax.stages.mmrpt.budget import caption_flops, policy_flops, supervised_flops
from mmrpt_jax.stages.mmrpt.caption import caption
from mmrpt_jax.stages.mmrpt.fill import supervised_batches
from mmrpt_jax.stages.mmrpt.reinforce import reinforce
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.processes import agreed
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state
from mmrpt_jax.training.supervised import make_supervised_step


def run_arm(run: Run, name: str, masks: Path, directory: Path) -> None:
    """Trains one arm and writes its weights.

    Args:
        run: the experiment.
        name: a name of `ARMS`.
        masks: folder of the mask stage of this arm.
        directory: where to write.
    """
    if is_complete(directory):
        return
    arm, spent = ARMS[name], policy_flops(run.config, run.vlm, len(run.train_source))
    params = run.base()
    if arm.method == "caption":
        steps = round(spent / caption_flops(run.config, run.vlm))
        target = directory / "checkpoints"
        params = caption(run, params, steps=steps, stage=name, directory=target, suffix="_control")
    elif arm.method == "supervised":
        steps = round(spent / supervised_flops(run.config, run.vlm))
        params = imitate(
            run, params, masked_records(run, masks), arm, steps=steps, stage=name, directory=directory
        )
    elif arm.method == "policy":
        steps = run.config.rl.steps
        params = _warm_up(run, params, masked_records(run, masks), arm, name, directory / "warmup")
        params = reinforce(run, params, masked_records(run, masks), arm, name, directory)
    else:
        steps, spent = 0, 0.0
    if steps:
        run.save(directory / "weights.safetensors", params)
    mark_complete(directory, {"arm": name, "flops": spent, "steps": steps})


def masked_records(run: Run, masks: Path) -> RandomAccess[Any]:
    """The training records that have masks, with their masks."""
    return join(run.train_source, open_sidecar(masks / "records", "train"), missing="skip")


def imitate(
    run: Run, params: Any, source: RandomAccess[Any], arm: Arm, *, steps: int, stage: str, directory: Path
) -> Any:
    """Supervised training on masked captions and their true spans; returns the new parameters."""
    cfg = run.config.fill
    optimizer = make_optimizer(learning_rate=cfg.learning_rate, steps=steps, warmup=cfg.learning_rate_warmup)
    return train(
        new_state(params, optimizer, run.trains),
        compile_step(make_supervised_step(run.vlm, optimizer)),
        supervised_batches(run, source, blank_images=arm.blank_images, batch_size=cfg.batch_size),
        steps=steps,
        stage=stage,
        directory=directory / "checkpoints",
        **run.logging,
    ).params


def _warm_up(run: Run, params: Any, source: RandomAccess[Any], arm: Arm, name: str, directory: Path) -> Any:
    """Teaches the answer format; the result is a file, so that a resumed run has the same reference policy."""
    path, steps = directory / "weights.safetensors", run.config.fill.warmup_steps
    if not steps:
        return params
    if not agreed(path.exists()):
        params = imitate(run, params, source, arm, steps=steps, stage=f"{name}_warmup", directory=directory)
        run.save(path, params)
    return run.weights(path)
