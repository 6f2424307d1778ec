"""What a config would do, before it does it: sizes, batch arithmetic, memory as XLA counts it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mmrpt_jax.models import (
    BranchTokens,
    ImagePatches,
    PromptTokens,
    VLMConfig,
    abstract_parameters,
    count_parameters,
)
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.budget import caption_flops, policy_flops, supervised_flops
from mmrpt_jax.stages.mmrpt.reinforce import loss_options
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.trained import describe_training, parts_of
from mmrpt_jax.training.policy import PolicyBatch, make_policy_step
from mmrpt_jax.training.state import Skipped, TrainState, init_of, make_optimizer

_Step = Callable[[TrainState, PolicyBatch], tuple[TrainState, dict]]


def describe_plan(config: ConfigDict) -> str:
    """Returns the resolved config, parameters, what an update holds, equal-compute steps, estimated device memory."""
    model = model_config(config, config.tokenizer.vocab_size)
    params, rl, data = abstract_parameters(model), config.rl, config.data
    prompt, branch = max(data.prompt_lengths), max(data.branch_lengths)
    completions = rl.prompts_per_step * rl.group_size
    shared = rl.prompts_per_step * prompt + completions * branch
    lines = [
        str(config),
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


def policy_update(
    config: ConfigDict, model: VLMConfig
) -> tuple[_Step, optax.GradientTransformation, PolicyBatch]:
    """The update of stage 4, its optimizer, and the shapes of its batch at the longest lengths."""
    rl, data = config.rl, config.data
    b, g, p, r = rl.prompts_per_step, rl.group_size, max(data.prompt_lengths), max(data.branch_lengths)
    tokens = _array((b, g, r), jnp.int32)
    mask, floats = _array((b, g, r), bool), _array((b, g, r), jnp.float32)
    reference = None if rl.loss.kl == "none" else floats
    batch = PolicyBatch(
        _images(config, model, b),
        PromptTokens(_array((b, p), jnp.int32), _array((b, p), bool), _array((b, p), bool)),
        BranchTokens(tokens, mask),
        floats,
        _array((b, g), jnp.float32),
        _array((b, g), bool),
        reference,
    )
    optimizer = make_optimizer(learning_rate=rl.learning_rate, steps=rl.steps)
    step = make_policy_step(
        model,
        optimizer,
        temperature=rl.temperature,
        banned=jnp.zeros(model.vocab_size, bool),
        micro_batches=rl.micro_batches,
        **loss_options(config),
    )
    return step, optimizer, batch


def _update_memory(config: ConfigDict, model: VLMConfig, params) -> int:
    step, optimizer, batch = policy_update(config, model)
    trained, frozen = parts_of(config, params)
    moments = jax.eval_shape(init_of(optimizer), trained)
    count = _array((), jnp.int32)
    state = TrainState(count, trained, moments, Skipped(count, count), frozen)
    memory = jax.jit(step, donate_argnums=0).lower(state, batch).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return held - memory.alias_size_in_bytes


def _images(config: ConfigDict, model: VLMConfig, prompts: int) -> ImagePatches | jax.ShapeDtypeStruct:
    vision = model.vision
    if not config.data.patch_counts:
        return _array((prompts, 1, vision.image_height, vision.image_width, 3), jnp.uint8)
    shape = (prompts, max(config.data.patch_counts))
    return ImagePatches(_array((*shape, vision.patch_pixels), jnp.uint8), *[_array(shape, jnp.int32)] * 3)


def _array(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
