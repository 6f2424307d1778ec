"""The rewards that a config names, with what they need of the run."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mmrpt_jax.models.sentence_encoder import load_sentence_encoder
from mmrpt_jax.rewards import (
    READ_GAIN,
    RewardFn,
    in_time,
    make_length_penalty,
    make_semantic_reward,
    make_soft_overlong,
    weighted,
)
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.answers import PromptBatch
from mmrpt_jax.training.gain import make_visual_gain

# Rewards that need a number or a model of the run; the others are in `rewards.REWARDS`.
MADE_HERE = ("semantic", "length", "overlong")


def configured_rewards(run: Run) -> Mapping[str, tuple[RewardFn, float]]:
    """Name -> (reward, weight), as `config.rl.rewards` says."""
    cfg = run.config.rl
    max_tokens = max(run.config.data.branch_lengths)
    more: dict[str, RewardFn] = {
        "length": make_length_penalty(max_tokens=max_tokens),
        "overlong": make_soft_overlong(max_tokens=max_tokens, buffer_tokens=max(max_tokens // 4, 1)),
    }
    weights = active_rewards(run.config)
    if "semantic" in weights:
        more["semantic"] = make_semantic_reward(load_sentence_encoder(cfg.semantic_encoder).encode)
    return in_time(weighted(weights, more=more), cfg.reward_timeout)


def active_rewards(config: ConfigDict) -> dict[str, float]:
    """Weights of the rewards that count."""
    return {name: weight for name, weight in config.rl.rewards.to_dict().items() if weight}


def computes_gain(config: ConfigDict) -> bool:
    """Whether rewards read a gain that costs forward passes; "span" and "surprise" are known from stage 2."""
    reads = any(name in active_rewards(config) for name in READ_GAIN)
    return reads and config.rl.visual_gain.of in ("truth", "answer")


def gain_column(run: Run, reference: Any) -> Callable[[Any, PromptBatch, list[str]], dict[str, list[Any]]]:
    """The reward column `visual_gain`, or no column if none is read or stage 2 knows it.

    Args:
        run: the experiment.
        reference: frozen parameters, under which the gain of sampled answers is measured.
    """
    cfg = run.config.rl
    if not computes_gain(run.config):
        return lambda params, batch, completions: {}
    gain = make_visual_gain(
        run.vlm,
        run.tokenizer,
        of=cfg.visual_gain.of,
        lengths=run.config.data.branch_lengths,
        cap=cfg.visual_gain.cap,
        share=run.share,
    )

    def column(judge: Any, batch: PromptBatch, completions: list[str]) -> dict[str, list[Any]]:
        return {"visual_gain": gain(judge, batch, completions)}

    if cfg.visual_gain.of == "truth":
        return column
    return lambda params, batch, completions: column(reference, batch, completions)
