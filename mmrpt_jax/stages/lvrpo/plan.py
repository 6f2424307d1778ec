"""What a config would do, before it does it: sizes, batch arithmetic, equal-compute steps, memory as XLA counts it."""

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models import abstract_parameters, count_parameters
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.lvrpo.arms import ARMS
from mmrpt_jax.stages.lvrpo.budget import arm_steps, budget_flops
from mmrpt_jax.stages.opening import unified_config
from mmrpt_jax.stages.placement import describe_placement
from mmrpt_jax.stages.rollouts import candidates
from mmrpt_jax.stages.trained import describe_training, parts_of


def describe_plan(config: ConfigDict) -> str:
    """Returns the resolved config, where parameters live, what an update holds, equal-compute steps, and memory."""
    model = unified_config(config, config.tokenizer.vocab_size)
    params = abstract_parameters(model)
    lines = [
        str(config),
        describe_placement(config, model),
        "",
        f"parameters            {count_parameters(params):,} (before the tokenizer is trained: at most), of which "
        f"{count_parameters(params.get('generation', {})):,} draw",
        describe_training(config, params),
        _groups(config, "understanding", "answers"),
        _groups(config, "generation", "drawings"),
        f"tokens per drawing    {model.latent.num_tokens} latents of {model.latent.features} numbers, "
        f"{config.generation.sampler.steps} steps",
        f"memory of a state     {_state_bytes(config, params) / 2**20:,.0f} MiB (parameters and two moments)",
        *(f"arm {name:<18}{_steps(config, model, name)}" for name in config.arms),
        f"budget of an arm      {budget_flops(config, model):.3g} FLOP, padding included",
    ]
    return "\n".join(lines)


def _groups(config: ConfigDict, section: str, noun: str) -> str:
    cfg = config[section]
    drawn = candidates(cfg)
    return (
        f"{section:<22}{drawn} prompts × {cfg.group_size} {noun} = {drawn * cfg.group_size} per step, "
        f"{cfg.prompts_per_step} groups learned from, {cfg.micro_batches} micro-batch(es)"
    )


def _steps(config: ConfigDict, model: UnifiedConfig, name: str) -> str:
    steps = arm_steps(config, model, ARMS[name])
    return f"{steps:,} steps" if steps else "not trained"


def _state_bytes(config: ConfigDict, params) -> int:
    """Moments are float32, and there are none of what is frozen."""
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    return held + 2 * 4 * count_parameters(parts_of(config, params)[0])
