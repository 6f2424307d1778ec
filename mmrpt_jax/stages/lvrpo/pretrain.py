"""Stage 1: captions, questions and drawings, imitated together by one model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.captions import caption_batches
from mmrpt_jax.stages.completion import is_complete, mark_complete
from mmrpt_jax.stages.lvrpo.examples import drawing_batches, question_batches
from mmrpt_jax.stages.run import Run, side_by_side
from mmrpt_jax.training.drawing import make_drawing_loss
from mmrpt_jax.training.joint import Task, make_joint_step
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state
from mmrpt_jax.training.supervised import make_supervised_loss


def run_pretrain(run: Run) -> None:
    """Trains the base model from where the run begins, and writes `base/weights.safetensors`; no steps, no file."""
    directory, cfg = run.workdir / "base", run.config.pretrain
    if is_complete(directory):
        return
    if cfg.steps:
        params = imitate(
            run, run.first_weights(), cfg, steps=cfg.steps, stage="pretrain", directory=directory
        )
        run.save(directory / "weights.safetensors", params)
    mark_complete(directory, {"steps": cfg.steps, "init": dict(run.config.init)})


def imitate(
    run: Run, params: Any, cfg: ConfigDict, *, steps: int, stage: str, directory: Path, suffix: str = ""
) -> Any:
    """Trains on all tasks of a weight above 0 from `params` and returns the new parameters.

    Args:
        run: the experiment.
        params: where to begin.
        cfg: learning rate and weights: `config.pretrain`, or `config.sft`.
        steps: of the optimizer.
        stage: what logs call it.
        directory: where checkpoints go.
        suffix: of the streams of data, "_policy" for what the policy arms are given.
    """
    optimizer = make_optimizer(
        learning_rate=cfg.learning_rate,
        steps=steps,
        warmup=cfg.learning_rate_warmup,
        weight_decay=cfg.weight_decay,
    )
    weights = {task: weight for task, weight in cfg.weights.items() if weight}
    return train(
        new_state(params, optimizer, run.trains),
        compile_step(make_joint_step(imitation_tasks(run.config, run.model, weights), optimizer)),
        imitation_batches(run, weights, suffix),
        steps=steps,
        stage=stage,
        directory=directory / "checkpoints",
        **run.logging,
    ).params


def imitation_tasks(
    config: ConfigDict, model: UnifiedConfig, weights: Mapping[str, float]
) -> dict[str, Task]:
    """What is imitated, by task: cross-entropy of texts, flow matching of pictures."""
    drawing, text = config.drawing, make_supervised_loss(model.vlm)
    picture = make_drawing_loss(model, shift=drawing.shift, repeats=drawing.repeats)
    losses = {"captions": text, "questions": text, "drawings": picture}
    return {name: Task(losses[name], weight) for name, weight in weights.items()}


def imitation_batches(
    run: Run, tasks: Iterable[str], suffix: str = ""
) -> Callable[[int], Iterator[dict[str, Any]]]:
    """One batch of every task per step."""
    streams = {"captions": caption_batches, "questions": question_batches, "drawings": drawing_batches}
    return side_by_side({name: streams[name](run, suffix) for name in tasks})
