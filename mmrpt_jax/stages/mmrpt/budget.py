"""Equal compute: what the method spends, and how many steps the same buys the controls."""

from ml_collections import ConfigDict

from mmrpt_jax.models import VLMConfig
from mmrpt_jax.stages.mmrpt.rewards import computes_gain
from mmrpt_jax.training.compute import forward_flops, update_flops

# With the image, once more without its sinks, and without the image.
_SCORING_PASSES = 3


def policy_flops(config: ConfigDict, model: VLMConfig, records: int) -> float:
    """FLOP of a policy arm: format warm-up, rollouts, visual gain, reference, updates, refreshed masks.

    Every arm gets as much. `records` captions are scored when masks are refreshed. Not counted on any side: the first
    scoring and masking, which arms share, and evaluation.
    """
    rl, data = config.rl, config.data
    group = {"prompts": rl.prompts_per_step, "group": rl.group_size, **_fill_shape(config)}
    # The visual gain is a pass with the image and one without.
    # Every candidate is sampled and its gain computed; the reference reads what is learned from.
    passes = rl.oversample * (1 + 2 * computes_gain(config)) + (rl.loss.kl != "none")
    step = passes * forward_flops(model, **group) + rl.updates_per_rollout * update_flops(model, **group)
    refreshes = (rl.steps - 1) // rl.refresh_every if rl.refresh_every else 0
    caption = {"prompt_tokens": min(data.prompt_lengths), "branch_tokens": max(data.caption_lengths)}
    scoring = _SCORING_PASSES * forward_flops(model, prompts=records, group=1, **caption)
    if config.mask.blind_reads == "prompt":
        masks = records * config.mask.max_spans // config.mask.spans_per_prompt
        scoring += forward_flops(model, prompts=masks, group=1, **_fill_shape(config))
    return config.fill.warmup_steps * supervised_flops(config, model) + rl.steps * step + refreshes * scoring


def supervised_flops(config: ConfigDict, model: VLMConfig) -> float:
    """FLOP of one supervised step on masked captions."""
    return update_flops(model, prompts=config.fill.batch_size, group=1, **_fill_shape(config))


def caption_flops(config: ConfigDict, model: VLMConfig) -> float:
    """FLOP of one captioning step, averaged over captions and blanks."""
    data, caption = config.data, config.caption
    lengths = {"prompt_tokens": min(data.prompt_lengths), "branch_tokens": max(data.caption_lengths)}
    captions = update_flops(model, prompts=caption.batch_size, group=caption.captions_per_image, **lengths)
    if not caption.infill_every:
        return captions
    blanks = update_flops(model, prompts=caption.batch_size, group=1, **_fill_shape(config))
    return captions + (blanks - captions) / caption.infill_every


def _fill_shape(config: ConfigDict) -> dict[str, int]:
    data = config.data
    return {"prompt_tokens": max(data.prompt_lengths), "branch_tokens": max(data.branch_lengths)}
