"""Equal compute: what the method spends, and how many steps the same buys each arm."""

from ml_collections import ConfigDict

from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.stages.lvrpo.arms import Arm, algorithm_of, needs_reference, reward_weights
from mmrpt_jax.training.compute import drawing_flops, forward_flops, update_flops

# Questions that a drawing is asked on average over all prompts: those of `rewards.questions_of_clauses`, and one for
# each thing that the prompt names.
QUESTIONS, THINGS = 5, 2
_METHOD = Arm("policy")


def budget_flops(config: ConfigDict, model: UnifiedConfig) -> float:
    """FLOP of the method: `config.align.steps` of its steps. Every arm gets as much; evaluation counts for none."""
    return config.align.steps * step_flops(config, model, _METHOD)


def arm_steps(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> int:
    """Steps that the budget buys an arm."""
    if arm.method == "none":
        return 0
    return round(budget_flops(config, model) / step_flops(config, model, arm))


def step_flops(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    """FLOP of one step of an arm, padding included."""
    parts = {
        "imitation": {"understanding": _imitated_answers, "generation": _imitated_drawings},
        "policy": {"understanding": _answers, "generation": _drawings},
    }[arm.method]
    return sum(parts[task](config, model, arm) for task in _computed(config, arm))


def _computed(config: ConfigDict, arm: Arm) -> list[str]:
    """The tasks of an arm that are computed: of imitation, those whose weight is not 0."""
    if arm.method != "imitation":
        return list(arm.tasks)
    imitated = {"understanding": "questions", "generation": "drawings"}
    return [task for task in arm.tasks if config.sft.weights.get(imitated[task], 0.0)]


def _imitated_answers(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    return update_flops(model.vlm, prompts=config.question.batch_size, group=1, **_answer_shape(config))


def _imitated_drawings(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    drawing, prompt = config.drawing, max(config.data.drawing_lengths)
    shape = {"prompts": drawing.batch_size, "prompt_tokens": prompt, "images": 1, "looks": drawing.repeats}
    return 3 * drawing_flops(model, **shape)


def _answers(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    """Every candidate is sampled; the reference reads what is learned from."""
    cfg = config.understanding
    shape = {"prompts": cfg.prompts_per_step, "group": cfg.group_size, **_answer_shape(config)}
    passes = cfg.oversample + (cfg.loss.kl != "none")
    update = config.align.updates_per_rollout * update_flops(model.vlm, **shape)
    return passes * forward_flops(model.vlm, **shape) + update


def _drawings(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    """Every candidate is drawn and judged; the reference looks at what is learned from."""
    cfg, algorithm = config.generation, algorithm_of(config, arm)
    shape = {"prompts": cfg.prompts_per_step, "prompt_tokens": max(config.data.drawing_lengths)}
    looks = _learned_steps(config, algorithm)
    # Of a group, dpo learns from the best and the worst.
    learned = {"images": 2 if algorithm == "dpo" else cfg.group_size, "looks": looks}
    # Guidance looks behind a second prompt as well, through which nothing is learned.
    contexts = 1 + (cfg.sampler.guidance > 1)
    drawn = contexts * drawing_flops(model, **shape, images=cfg.group_size, looks=cfg.sampler.steps)
    look = drawing_flops(model, **shape, **learned)
    update = config.align.updates_per_rollout * (2 + contexts) * look
    reference = 0.0
    if needs_reference(config, arm):
        reference = contexts * drawing_flops(model, **shape, images=cfg.group_size, looks=looks)
    if algorithm == "nft" and config.align.updates_per_rollout > 1:
        # What the policy said before its updates is remembered.
        reference += contexts * look
    return cfg.oversample * (drawn + _judging(config, model, arm)) + reference + update


def _learned_steps(config: ConfigDict, algorithm: str) -> int:
    """Noise levels at which an image is learned from: the noisy steps of the sampler, or fresh ones."""
    sampler = config.generation.sampler
    if algorithm != "grpo":
        return config.generation.losses[algorithm].get("looks", 1)
    start, stop = tuple(sampler.window) or (0, sampler.steps)
    return stop - start


def _judging(config: ConfigDict, model: UnifiedConfig, arm: Arm) -> float:
    """What the model says of the images drawn for one prompt per prompt learned from; rules cost nothing."""
    cfg, data, weights = config.generation, config.data, reward_weights(config, arm)
    images = cfg.prompts_per_step * cfg.group_size
    seen, spent = {"prompt_tokens": min(data.prompt_lengths), **_patches(config)}, 0.0
    if "prompt_likelihood" in weights:
        branch = max(data.drawing_lengths)
        spent += forward_flops(model.vlm, prompts=images, group=1, branch_tokens=branch, **seen)
    if "knowledge" in weights:
        shape = {"prompts": images * QUESTIONS, "group": 1, "branch_tokens": max(data.branch_lengths)}
        spent += forward_flops(model.vlm, **seen, **shape)
    if "yes_probability" in weights:
        # Yes and no are compared, padded as captions are.
        shape = {"prompts": images * THINGS, "group": 2, "branch_tokens": min(data.caption_lengths)}
        spent += forward_flops(model.vlm, **seen, **shape)
    return spent


def _answer_shape(config: ConfigDict) -> dict[str, int]:
    data = config.data
    lengths = {"prompt_tokens": max(data.prompt_lengths), "branch_tokens": max(data.branch_lengths)}
    return {**lengths, **_patches(config)}


def _patches(config: ConfigDict) -> dict[str, int]:
    """Of a prompt's image, where images may have any size."""
    counts = config.data.patch_counts
    return {"patches": max(counts)} if counts else {}
