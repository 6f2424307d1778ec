"""What a config would do, before it does it: sizes, batch arithmetic, memory as XLA counts it."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig, abstract_parameters, count_parameters
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.budget import caption_flops, policy_flops, supervised_flops
from mmrpt_jax.stages.mmrpt.programs import policy_update
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.placement import describe_placement
from mmrpt_jax.stages.topology.shapes import array
from mmrpt_jax.stages.trained import describe_training, parts_of
from mmrpt_jax.training.state import Skipped, TrainState, init_of


def describe_plan(config: ConfigDict) -> str:
    """Returns the resolved config, where parameters live, what an update holds, equal-compute steps, and memory."""
    model = model_config(config, config.tokenizer.vocab_size)
    params, rl, data = abstract_parameters(model), config.rl, config.data
    prompt, branch = max(data.prompt_lengths), max(data.branch_lengths)
    completions = rl.prompts_per_step * rl.group_size
    shared = rl.prompts_per_step * prompt + completions * branch
    lines = [
        str(config),
        describe_placement(config, model),
        "",
        f"parameters            {count_parameters(params):,} (before the tokenizer is trained: at most)",
        describe_training(config, params),
        f"policy step           {rl.prompts_per_step} prompts × {rl.group_size} answers = {completions} completions, "
        f"{rl.micro_batches} micro-batch(es), {rl.updates_per_rollout} update(s) per rollout",
        f"tokens per update     {shared:,} with shared prompts, {completions * (prompt + branch):,} without",
        f"memory of an update   {_update_memory(config, model, params) / 2**20:,.0f} MiB (XLA's own estimate)",
    ]
    budget = policy_flops(config, model, data.records)
    for name in config.arms:
        per_step = {"caption": caption_flops, "supervised": supervised_flops}.get(ARMS[name].method)
        steps = f"{round(budget / per_step(config, model)):,} steps" if per_step else _own_steps(config, name)
        lines.append(f"arm {name:<18}{steps}")
    lines.append(f"budget of an arm      {budget:.3g} FLOP, padding included")
    return "\n".join(lines)


def _own_steps(config: ConfigDict, name: str) -> str:
    if ARMS[name].method == "none":
        return "not trained"
    return f"{config.fill.warmup_steps:,} warm-up steps + {config.rl.steps:,} policy steps"


def _update_memory(config: ConfigDict, model: VLMConfig, params) -> int:
    step, optimizer, batch = policy_update(config, model)
    trained, frozen = parts_of(config, params)
    moments = jax.eval_shape(init_of(optimizer), trained)
    count = array(dtype=jnp.int32)
    state = TrainState(count, trained, moments, Skipped(count, count), frozen)
    memory = jax.jit(step, donate_argnums=0).lower(state, batch).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return held - memory.alias_size_in_bytes
