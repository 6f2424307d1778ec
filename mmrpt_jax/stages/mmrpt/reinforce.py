"""The policy arms: what a config says about rollouts, rewards, advantages and updates, put together."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.data.sidecar import join, open_sidecar
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.stages.advantages import make_advantage
from mmrpt_jax.stages.answering import advantage_scale, answer_rollout, completions_log, ref_logprobs, scoring
from mmrpt_jax.stages.mmrpt.arms import Arm
from mmrpt_jax.stages.mmrpt.fill import prompt_batches
from mmrpt_jax.stages.mmrpt.mask import run_mask
from mmrpt_jax.stages.mmrpt.rewards import configured_rewards, gain_column
from mmrpt_jax.stages.mmrpt.score import run_score
from mmrpt_jax.stages.rollouts import candidates
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.answers import Answering, collect_answers
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.policy import make_policy_step
from mmrpt_jax.training.processes import for_writer
from mmrpt_jax.training.reinforce import make_reinforcement_step
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state


def reinforce(
    run: Run, reference: Any, source: RandomAccess[Any], arm: Arm, name: str, directory: Path
) -> Any:
    """Trains a policy on masked records, beginning as `reference`, which stays frozen; returns its parameters."""
    cfg = run.config.rl
    optimizer = make_optimizer(
        learning_rate=cfg.learning_rate,
        steps=cfg.steps * cfg.updates_per_rollout,
        warmup=cfg.learning_rate_warmup,
    )
    # What is frozen is one copy: the policy's and the reference's.
    state = new_state(reference, optimizer, run.trains, keep=True)
    with contextlib.closing(for_writer(CompletionsWriter, directory)) as completions:
        collect = functools.partial(collect_answers, _answering(run, reference, completions))
        update = make_policy_step(
            run.vlm,
            optimizer,
            micro_batches=cfg.micro_batches,
            **scoring(run, cfg),
            **loss_options(run.config),
        )
        step = make_reinforcement_step(
            collect, compile_step(update), run.key(name), updates=cfg.updates_per_rollout
        )
        for begin, end in _segments(cfg.steps, cfg.refresh_every):
            if begin:
                source = _refreshed(run, state.params, arm, directory / f"refresh-{begin}")
            state = train(
                state,
                step,
                prompt_batches(run, source, blank_images=arm.blank_images, batch_size=candidates(cfg)),
                steps=end,
                stage=name,
                directory=directory / "checkpoints",
                updates_per_step=cfg.updates_per_rollout,
                **run.logging,
            )
    return state.params


def _segments(steps: int, refresh_every: int) -> Iterator[tuple[int, int]]:
    length = refresh_every or steps
    for begin in range(0, steps, length):
        yield begin, min(begin + length, steps)


def _refreshed(run: Run, params: Any, arm: Arm, directory: Path) -> RandomAccess[Any]:
    """Scores and masks the data anew with the policy as it is now."""
    run_score(run, params, directory / "scores")
    run_mask(run, params, directory / "scores", directory / "masks", arm.masks)
    return join(run.train_source, open_sidecar(directory / "masks" / "records", "train"), missing="skip")


def _answering(run: Run, reference: Any, completions: CompletionsWriter) -> Answering:
    cfg = run.config.rl
    return Answering(
        rollout=answer_rollout(run, cfg),
        rewards=configured_rewards(run),
        advantage=make_advantage(cfg.advantage, scale=advantage_scale(cfg)),
        tokenizer=run.tokenizer,
        group_size=cfg.group_size,
        rollout_parts=cfg.rollout_parts,
        more_columns=gain_column(run, reference),
        ref_logprobs=ref_logprobs(run, cfg, reference),
        train_on_truncated=cfg.train_on_truncated,
        keep=cfg.prompts_per_step,
        drop_zero_variance=cfg.drop_zero_variance,
        packed_lengths=cfg.packed_lengths,
        on_judged=completions_log(completions, prompts="masked"),
        share=run.share,
    )


def loss_options(config: ConfigDict) -> dict[str, Any]:
    """Keyword arguments of `objectives.policy_loss`; the budget of Dr. GRPO is the longest completion."""
    return {**config.rl.loss.to_dict(), "budget": max(config.data.branch_lengths)}
