"""Groups of answers as a config's section describes them: sampled, compared and scored alike by every method."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mmrpt_jax.models.forward import forward
from mmrpt_jax.objectives import VARIANTS
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.sampling import Rollout, make_rollout
from mmrpt_jax.stages.run import Run
from mmrpt_jax.stages.trained import sampling_as_configured
from mmrpt_jax.training.answers import JudgedAnswers


def scoring(run: Run, cfg: ConfigDict) -> dict[str, Any]:
    """How logits become a distribution: alike in sampler, policy and reference."""
    return {"temperature": cfg.temperature, "banned": jnp.asarray(run.tokenizer.banned)}


def answer_rollout(run: Run, cfg: ConfigDict) -> Callable[..., Rollout]:
    """The compiled rollout of `cfg.group_size` answers per prompt."""
    rollout = make_rollout(
        run.vlm,
        group_size=cfg.group_size,
        max_tokens=max(run.config.data.branch_lengths),
        end_ids=run.tokenizer.stop_ids,
        **scoring(run, cfg),
    )
    return jax.jit(sampling_as_configured(run.config, run.model, rollout))


def advantage_scale(cfg: ConfigDict) -> str:
    """What advantages are divided by: as the config says, or as the paper of its loss does."""
    return VARIANTS[cfg.loss.variant].scale if cfg.advantage.scale == "variant" else cfg.advantage.scale


def ref_logprobs(run: Run, cfg: ConfigDict, reference: Any) -> Callable[..., Any] | None:
    """The compiled scores of answers under the reference; None without a KL term."""
    if cfg.loss.kl == "none":
        return None
    options = scoring(run, cfg)
    scored = jax.jit(lambda params, *inputs: forward(run.vlm, params, *inputs, **options).logprobs)
    return functools.partial(scored, reference)


def completions_log(writer: CompletionsWriter, *, prompts: str) -> Callable[[int, JudgedAnswers], None]:
    """Writes what was judged; `prompts` is the column that tells a reader what was asked."""

    def write(step: int, judged: JudgedAnswers) -> None:
        columns, judgement = judged.batch.columns, judged.own
        writer.write(
            step,
            prompts=columns[prompts],
            truths=columns["answer"],
            answers=judged.completions,
            rewards=judgement.by_group(),
            advantages=judgement.advantages,
            images=columns["id"],
        )

    return write
