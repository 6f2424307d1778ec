"""Stage 2: groups of answers and groups of drawings, judged and learned from in one update of one model."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models.autoencoder import decode_tokens
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.drawings import DrawingsWriter
from mmrpt_jax.rewards import weighted
from mmrpt_jax.sampling import FlowSampler, Guidance, make_image_rollout
from mmrpt_jax.stages.advantages import make_advantage, make_best_of_advantage, shuffled
from mmrpt_jax.stages.answering import advantage_scale, answer_rollout, completions_log, ref_logprobs, scoring
from mmrpt_jax.stages.lvrpo.arms import Arm, algorithm_of, needs_reference, reward_weights
from mmrpt_jax.stages.lvrpo.examples import prompts_to_draw, questions_to_answer
from mmrpt_jax.stages.lvrpo.rewards import drawing_rewards, open_encoder, self_judgement
from mmrpt_jax.stages.run import Run, side_by_side
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
    update = compile_step(make_joint_step({task: _loss(run, arm, task) for task in arm.tasks}, optimizer))
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
            **run.logging,
        ).params


def prompt_batches(run: Run, tasks: tuple[str, ...]) -> Callable[[int], Iterator[dict[str, Any]]]:
    """A batch of prompts of every task per step."""
    sources: Mapping[str, Callable] = {"understanding": questions_to_answer, "generation": prompts_to_draw}
    return side_by_side(
        {task: sources[task](run, prompts=_candidates(run.config[task])) for task in sorted(tasks)}
    )


def _candidates(cfg: ConfigDict) -> int:
    return cfg.prompts_per_step * cfg.oversample


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


def _loss(run: Run, arm: Arm, task: str) -> Task:
    cfg, weight = run.config[task], run.config.align.weights[task]
    if task == "understanding":
        budget = max(run.config.data.branch_lengths)
        loss = make_policy_loss(run.vlm, budget=budget, **scoring(run, cfg), **cfg.loss.to_dict())
    else:
        algorithm = algorithm_of(run.config, arm)
        options = cfg.losses[algorithm].to_dict()
        loss = IMAGE_LOSSES[algorithm](run.model, image_sampler(cfg.sampler), **options)
    return Task(loss, weight, cfg.micro_batches)


def _answering(run: Run, reference: Any, arm: Arm, completions: CompletionsWriter) -> Answering:
    cfg = run.config.understanding
    return Answering(
        rollout=answer_rollout(run, cfg),
        rewards=weighted({name: weight for name, weight in cfg.rewards.items() if weight}),
        advantage=_compare(cfg.advantage, arm, scale=advantage_scale(cfg)),
        tokenizer=run.tokenizer,
        group_size=cfg.group_size,
        ref_logprobs=ref_logprobs(run, cfg, reference),
        keep=cfg.prompts_per_step,
        drop_zero_variance=cfg.drop_zero_variance,
        on_judged=completions_log(completions, prompts="question"),
        share=run.share,
    )


def _drawing(run: Run, reference: Any, arm: Arm, drawings: DrawingsWriter) -> Drawing:
    cfg = run.config.generation
    sampler = image_sampler(cfg.sampler)
    coder, latent, decode = run.coder, run.model.latent, jax.jit(decode_tokens, static_argnums=2)
    rewards = drawing_rewards(reward_weights(run.config, arm), encoder=open_encoder(cfg.encoder))
    velocity = _velocity(run, arm, sampler)
    # At the first update the present policy is the one that sampled.
    remembered = algorithm_of(run.config, arm) == "nft" and run.config.align.updates_per_rollout > 1
    return Drawing(
        rollout=jax.jit(
            make_image_rollout(run.model, sampler, group_size=cfg.group_size, same_noise=cfg.same_noise)
        ),
        # The autoencoder is an argument: compiled in, its weights would be there twice.
        decode=lambda latents: decode(coder, latents, latent),
        rewards=rewards,
        advantage=_compare(cfg.advantage, arm),
        group_size=cfg.group_size,
        more_columns=self_judgement(run, reference, rewards),
        ref_velocity=functools.partial(velocity, reference) if needs_reference(run.config, arm) else None,
        behaviour_velocity=velocity if remembered else None,
        keep=cfg.prompts_per_step,
        drop_zero_variance=cfg.drop_zero_variance,
        on_judged=_drawings_log(drawings),
        share=run.share,
    )


def _velocity(run: Run, arm: Arm, sampler: FlowSampler) -> Callable[..., Any]:
    """Where the arm's loss looks at drawings, what a policy says of them: (params, conditions, rollout, seeds)."""
    algorithm = algorithm_of(run.config, arm)
    looks = run.config.generation.losses[algorithm].get("looks", 1)
    return jax.jit(make_policy_velocity(run.model, sampler, algorithm=algorithm, looks=looks))


def _drawings_log(writer: DrawingsWriter) -> Callable[[int, JudgedImages], None]:
    def write(step: int, judged: JudgedImages) -> None:
        judgement, images = judged.own, judged.images
        writer.write(
            step,
            prompts=judged.batch.texts,
            images=images.reshape(*judgement.advantages.shape, *images.shape[1:]),
            rewards=judgement.by_group(),
            advantages=judgement.advantages,
        )

    return write


def _compare(cfg: Any, arm: Arm, *, scale: str | None = None) -> Callable[..., Any]:
    advantage = make_best_of_advantage() if arm.best_of else make_advantage(cfg, scale=scale)
    return shuffled(advantage) if arm.shuffled else advantage
