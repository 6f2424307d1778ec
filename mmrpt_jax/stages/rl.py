"""Stage 4: reconstruct what was cut out. Every arm of the comparison is trained here, from one base, with one budget."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import join, open_sidecar
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.weights import save_weights
from mmrpt_jax.objectives import (
    VARIANTS,
    gdpo,
    group_advantages,
    normalise_then_sum,
    rloo_advantages,
    sum_then_normalise,
)
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.rewards import weighted
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.stages.arms import Arm, find_arm
from mmrpt_jax.stages.budget import caption_flops, policy_flops, supervised_flops
from mmrpt_jax.stages.caption import caption
from mmrpt_jax.stages.fill import prompt_batches, supervised_batches
from mmrpt_jax.stages.run import Run, is_complete, mark_complete
from mmrpt_jax.training.gain import make_visual_gain
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.policy import make_policy_step
from mmrpt_jax.training.reinforce import Judged, Reinforcement, make_reinforcement_step
from mmrpt_jax.training.state import make_optimizer, new_state
from mmrpt_jax.training.supervised import make_supervised_step

_COMBINE = {"sum_then_normalise": sum_then_normalise, "normalise_then_sum": normalise_then_sum, "gdpo": gdpo}


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
    arm = find_arm(name)
    params = run.weights(run.workdir / "base" / "weights.safetensors")
    budget = policy_flops(run.config, run.model)
    if arm.method == "caption":
        steps = round(budget / caption_flops(run.config, run.model))
        params = caption(run, params, steps=steps, stage=name, directory=str(directory / "checkpoints"))
        spent = {"steps": steps}
    elif arm.method == "supervised":
        steps = round(budget / supervised_flops(run.config, run.model))
        params = _imitate(run, params, _masked(run, masks), arm, steps=steps, stage=name, directory=directory)
        spent = {"steps": steps}
    elif arm.method == "policy":
        params = _reinforce(run, params, _masked(run, masks), arm, name, directory)
        spent = {"warmup_steps": run.config.fill.warmup_steps, "steps": run.config.rl.steps}
    else:
        budget, spent = 0.0, {"steps": 0}
    save_weights(directory / "weights.safetensors", params)
    mark_complete(directory, {"arm": name, "flops": budget, **spent})


def _masked(run: Run, masks: Path) -> RandomAccess[Any]:
    return join(run.train_source, open_sidecar(masks / "records", "train"), missing="skip")


def _imitate(run: Run, params, source, arm: Arm, *, steps: int, stage: str, directory: Path):
    cfg = run.config.fill
    optimizer = make_optimizer(learning_rate=cfg.learning_rate, steps=steps, warmup=cfg.learning_rate_warmup)
    state = train(
        new_state(params, optimizer),
        jax.jit(make_supervised_step(run.model, optimizer), donate_argnums=0),
        supervised_batches(run, source, blank_images=arm.blank_images, batch_size=cfg.batch_size, stream=1),
        steps=steps,
        stage=stage,
        directory=str(directory / "checkpoints"),
        writer=run.writer,
        log_every=run.config.log_every,
        save_every=run.config.save_every,
    )
    return state.params


def _reinforce(run: Run, params, source, arm: Arm, name: str, directory: Path):
    warmed = directory / "warmup" / "weights.safetensors"
    if not warmed.exists():
        steps, stage = run.config.fill.warmup_steps, f"{name}_warmup"
        params = _imitate(run, params, source, arm, steps=steps, stage=stage, directory=directory / "warmup")
        save_weights(warmed, params)
    # The reference policy is a file, so that a resumed run measures KL and gain against the same one.
    reference = run.weights(warmed)
    cfg = run.config.rl
    steps = cfg.steps * cfg.updates_per_rollout
    optimizer = make_optimizer(learning_rate=cfg.learning_rate, steps=steps, warmup=cfg.learning_rate_warmup)
    with contextlib.closing(CompletionsWriter(directory)) as completions:
        parts = _parts(run, reference, optimizer, completions)
        state = train(
            new_state(run.weights(warmed), optimizer),
            make_reinforcement_step(parts, run.key(name)),
            prompt_batches(
                run, source, blank_images=arm.blank_images, batch_size=cfg.prompts_per_step, stream=2
            ),
            steps=cfg.steps,
            stage=name,
            directory=str(directory / "checkpoints"),
            writer=run.writer,
            log_every=run.config.log_every,
            save_every=run.config.save_every,
        )
    return state.params


def _parts(run: Run, reference, optimizer, completions: CompletionsWriter) -> Reinforcement:
    cfg, tokenizer = run.config.rl, run.tokenizer
    scoring = {"temperature": cfg.temperature, "banned": jnp.asarray(tokenizer.banned)}
    rollout = make_rollout(
        run.model, group_size=cfg.group_size, max_tokens=max(run.config.data.branch_lengths), end_ids=(tokenizer.eos_id,), **scoring
    )
    update = make_policy_step(run.model, optimizer, micro_batches=cfg.micro_batches, **scoring, **loss_options(run.config))
    return Reinforcement(
        rollout=jax.jit(rollout),
        rewards=weighted(cfg.rewards.to_dict()),
        advantage=_advantage(run),
        update=jax.jit(update),
        tokenizer=tokenizer,
        group_size=cfg.group_size,
        more_columns=_gain_column(run, reference),
        ref_logprobs=_ref_logprobs(run, reference, scoring),
        train_on_truncated=cfg.train_on_truncated,
        updates=cfg.updates_per_rollout,
        on_judged=lambda step, judged: _write_completions(completions, step, judged),
    )


def _write_completions(writer: CompletionsWriter, step: int, judged: Judged) -> None:
    shape = judged.advantages.shape
    parts = {name: values.reshape(shape) for name, values in judged.table.parts.items()}
    writer.write(
        step,
        prompts=judged.batch.columns["masked"],
        masked_spans=judged.batch.columns["answer"],
        answers=np.reshape(judged.completions, shape).tolist(),
        rewards={"total": judged.table.total.reshape(shape), **parts},
        advantages=judged.advantages,
        images=judged.batch.columns["id"],
    )


def loss_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `objectives.policy_loss`; the budget of Dr. GRPO is the longest completion."""
    return {**config.rl.loss.to_dict(), "budget": max(config.data.branch_lengths)}


def _advantage(run: Run) -> Callable:
    cfg = run.config.rl.advantage
    scale = VARIANTS[run.config.rl.loss.variant].scale if cfg.scale == "variant" else cfg.scale
    one = rloo_advantages if scale == "rloo" else functools.partial(group_advantages, scale=scale, min_std=cfg.min_std)
    return jax.jit(functools.partial(_COMBINE[cfg.combine], advantage_fn=one))


def _ref_logprobs(run: Run, reference, scoring: dict) -> Callable | None:
    if run.config.rl.loss.kl == "none":
        return None
    scored = jax.jit(lambda params, *inputs: forward(run.model, params, *inputs, **scoring).logprobs)
    return functools.partial(scored, reference)


def _gain_column(run: Run, reference) -> Callable:
    cfg = run.config.rl
    if "visual_gain" not in cfg.rewards:
        return lambda params, batch, completions: {}
    gain = make_visual_gain(
        run.model, run.tokenizer, of=cfg.visual_gain.of, lengths=run.config.data.branch_lengths, cap=cfg.visual_gain.cap
    )

    def column(params, batch, completions) -> dict[str, list[Any]]:
        frozen = params if cfg.visual_gain.of == "truth" else reference
        return {"visual_gain": gain(frozen, batch, completions)}

    return column
