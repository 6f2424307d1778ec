"""Stage 2: groups of answers and groups of drawings, judged and learned from in one update of one model."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.models.autoencoder import decode_tokens
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.drawings import DrawingsWriter
from mmrpt_jax.rewards import in_time, weighted
from mmrpt_jax.sampling import FlowSampler, Guidance, make_image_rollout
from mmrpt_jax.stages.advantages import make_advantage, make_best_of_advantage, shuffled
from mmrpt_jax.stages.answering import advantage_scale, answer_rollout, completions_log, ref_logprobs
from mmrpt_jax.stages.lvrpo.arms import Arm, algorithm_of, needs_reference, reward_weights
from mmrpt_jax.stages.lvrpo.examples import prompts_to_draw, questions_to_answer
from mmrpt_jax.stages.lvrpo.rewards import drawing_rewards, open_encoder, self_judgement
from mmrpt_jax.stages.rollouts import candidates
from mmrpt_jax.stages.run import Run, side_by_side
from mmrpt_jax.stages.trained import sampling_as_configured
from mmrpt_jax.training.accumulate import LossFn
from mmrpt_jax.training.answers import Answering, collect_answers
from mmrpt_jax.training.drawings import Drawing, JudgedImages, collect_drawings
from mmrpt_jax.training.image_policy import IMAGE_LOSSES, make_policy_velocity
from mmrpt_jax.training.joint import Task, make_joint_step
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.policy import make_policy_loss
from mmrpt_jax.training.processes import for_writer
from mmrpt_jax.training.reinforce import Collector, make_reinforcement_step, together
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state


def align(run: Run, reference: Any, arm: Arm, *, steps: int, name: str, directory: Path) -> Any:
    """Trains a policy that begins as `reference`, which stays frozen, for `steps`; returns its parameters."""
    cfg = run.config.align
    optimizer = make_optimizer(
        learning_rate=cfg.learning_rate,
        steps=steps * cfg.updates_per_rollout,
        warmup=cfg.learning_rate_warmup,
    )
    tasks = policy_tasks(run.config, run.model, arm, banned=run.tokenizer.banned)
    update = compile_step(make_joint_step(tasks, optimizer))
    with (
        contextlib.closing(for_writer(CompletionsWriter, directory, truth="true_reply")) as completions,
        contextlib.closing(for_writer(DrawingsWriter, directory, sheet_every=cfg.sheet_every)) as drawings,
    ):
        parts: dict[str, Collector] = {
            "understanding": functools.partial(collect_answers, _answering(run, reference, arm, completions)),
            "generation": functools.partial(collect_drawings, _drawing(run, reference, arm, drawings)),
        }
        collect = together({task: parts[task] for task in arm.tasks})
        return train(
            # What is frozen is one copy: the policy's and the reference's.
            new_state(reference, optimizer, run.trains, keep=True),
            make_reinforcement_step(collect, update, run.key(name), updates=cfg.updates_per_rollout),
            prompt_batches(run, arm.tasks),
            steps=steps,
            stage=name,
            directory=directory / "checkpoints",
            updates_per_step=cfg.updates_per_rollout,
            **run.logging,
        ).params


def prompt_batches(run: Run, tasks: tuple[str, ...]) -> Callable[[int], Iterator[dict[str, Any]]]:
    """A batch of prompts of every task per step."""
    sources: Mapping[str, Callable] = {"understanding": questions_to_answer, "generation": prompts_to_draw}
    return side_by_side(
        {task: sources[task](run, prompts=candidates(run.config[task])) for task in sorted(tasks)}
    )


def image_sampler(cfg: ConfigDict) -> FlowSampler:
    """The sampler that `config.generation.sampler` describes.

    Raises:
        ValueError: there is none such.
    """
    return FlowSampler(
        steps=cfg.steps,
        shift=cfg.shift,
        kind=cfg.kind,
        noise_level=cfg.noise_level,
        window=tuple(cfg.window) or None,
        reduce=cfg.reduce,
        guidance=Guidance(text=cfg.guidance, interval=tuple(cfg.guidance_interval), renorm=cfg.renorm),
    )


def policy_tasks(
    config: ConfigDict, model: UnifiedConfig, arm: Arm, *, banned: np.ndarray
) -> dict[str, Task]:
    """What an arm learns from its groups, by task; `banned` are the ids that the sampler cannot produce."""
    return {
        task: Task(
            _answer_loss(config, model, banned)
            if task == "understanding"
            else _image_loss(config, model, arm),
            config.align.weights[task],
            config[task].micro_batches,
        )
        for task in arm.tasks
    }


def _answer_loss(config: ConfigDict, model: UnifiedConfig, banned: np.ndarray) -> LossFn:
    cfg = config.understanding
    options = {"temperature": cfg.temperature, "banned": jnp.asarray(banned), **cfg.loss.to_dict()}
    return make_policy_loss(model.vlm, budget=max(config.data.branch_lengths), **options)


def _image_loss(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> LossFn:
    cfg, algorithm = config.generation, algorithm_of(config, arm)
    return IMAGE_LOSSES[algorithm](model, image_sampler(cfg.sampler), **cfg.losses[algorithm].to_dict())


def _answering(run: Run, reference: Any, arm: Arm, completions: CompletionsWriter) -> Answering:
    cfg = run.config.understanding
    return Answering(
        rollout=answer_rollout(run, cfg),
        rewards=in_time(
            weighted({name: weight for name, weight in cfg.rewards.items() if weight}),
            run.config.align.reward_timeout,
        ),
        advantage=_compare(cfg.advantage, arm, scale=advantage_scale(cfg)),
        tokenizer=run.tokenizer,
        group_size=cfg.group_size,
        rollout_parts=cfg.rollout_parts,
        ref_logprobs=ref_logprobs(run, cfg, reference),
        keep=cfg.prompts_per_step,
        drop_zero_variance=cfg.drop_zero_variance,
        packed_lengths=cfg.packed_lengths,
        on_judged=completions_log(completions, prompts="question"),
        share=run.share,
    )


def _drawing(run: Run, reference: Any, arm: Arm, drawings: DrawingsWriter) -> Drawing:
    cfg = run.config.generation
    sampler = image_sampler(cfg.sampler)
    coder, latent, decode = run.coder, run.model.latent, jax.jit(decode_tokens, static_argnums=2)
    rewards = drawing_rewards(
        reward_weights(run.config, arm), open_encoder(cfg.encoder), cfg.grounding.to_dict()
    )
    velocity = jax.jit(policy_velocity(run.config, run.model, arm))
    rollout = make_image_rollout(run.model, sampler, group_size=cfg.group_size, same_noise=cfg.same_noise)
    # At the first update the present policy is the one that sampled.
    remembered = algorithm_of(run.config, arm) == "nft" and run.config.align.updates_per_rollout > 1
    return Drawing(
        rollout=jax.jit(sampling_as_configured(run.config, run.model, rollout)),
        # The autoencoder is an argument: compiled in, its weights would be there twice.
        decode=lambda latents: decode(coder, latents, latent),
        rewards=in_time(rewards, run.config.align.reward_timeout),
        advantage=_compare(cfg.advantage, arm),
        group_size=cfg.group_size,
        rollout_parts=cfg.rollout_parts,
        more_columns=self_judgement(run, reference, rewards),
        ref_velocity=functools.partial(velocity, reference) if needs_reference(run.config, arm) else None,
        behaviour_velocity=velocity if remembered else None,
        keep=cfg.prompts_per_step,
        drop_zero_variance=cfg.drop_zero_variance,
        on_judged=_drawings_log(drawings),
        share=run.share,
    )


def policy_velocity(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> Callable[..., Any]:
    """Where the arm's loss looks at drawings, what a policy says of them: (params, conditions, rollout, seeds)."""
    cfg, algorithm = config.generation, algorithm_of(config, arm)
    looks = cfg.losses[algorithm].get("looks", 1)
    return make_policy_velocity(model, image_sampler(cfg.sampler), algorithm=algorithm, looks=looks)


def _drawings_log(writer: DrawingsWriter) -> Callable[[int, JudgedImages], None]:
    def write(step: int, judged: JudgedImages) -> None:
        judgement = judged.own
        writer.write(
            step,
            prompts=judged.batch.texts,
            images=judged.images,
            rewards=judgement.by_group(),
            advantages=judgement.advantages,
        )

    return write


def _compare(cfg: Any, arm: Arm, *, scale: str | None = None) -> Callable[..., Any]:
    advantage = make_best_of_advantage() if arm.best_of else make_advantage(cfg, scale=scale)
    return shuffled(advantage) if arm.shuffled else advantage
