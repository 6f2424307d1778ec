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
    scoring and masking, which arms share, evaluation, and, for towers of one size, what sees a prompt's further images.
    """
    rl = config.rl
    group = {"prompts": rl.prompts_per_step, "group": rl.group_size, **_fill_shape(config)}
    # The visual gain is a pass with the image and one without.
    # Every candidate is sampled and its gain computed; the reference reads what is learned from.
    passes = rl.oversample * (1 + 2 * computes_gain(config)) + (rl.loss.kl != "none")
    step = passes * forward_flops(model, **group) + rl.updates_per_rollout * update_flops(model, **group)
    refreshes = (rl.steps - 1) // rl.refresh_every if rl.refresh_every else 0
    scoring = _SCORING_PASSES * forward_flops(model, prompts=records, group=1, **_caption_shape(config))
    if config.mask.blind_reads == "prompt":
        masks = records * config.mask.max_spans // config.mask.spans_per_prompt
        scoring += forward_flops(model, prompts=masks, group=1, **_fill_shape(config))
    return config.fill.warmup_steps * supervised_flops(config, model) + rl.steps * step + refreshes * scoring


def supervised_flops(config: ConfigDict, model: VLMConfig) -> float:
    """FLOP of one supervised step on masked captions."""
    return update_flops(model, prompts=config.fill.batch_size, group=1, **_fill_shape(config))


def caption_flops(config: ConfigDict, model: VLMConfig) -> float:
    """FLOP of one captioning step, averaged over captions and blanks."""
    caption, shape = config.caption, _caption_shape(config)
    captions = update_flops(model, prompts=caption.batch_size, group=caption.captions_per_image, **shape)
    if not caption.infill_every:
        return captions
    blanks = update_flops(model, prompts=caption.batch_size, group=1, **_fill_shape(config))
    return captions + (blanks - captions) / caption.infill_every


def _caption_shape(config: ConfigDict) -> dict[str, int]:
    data = config.data
    return _shape(config, min(data.prompt_lengths), max(data.caption_lengths))


def _fill_shape(config: ConfigDict) -> dict[str, int]:
    data = config.data
    return _shape(config, max(data.prompt_lengths), max(data.branch_lengths))


def _shape(config: ConfigDict, prompt: int, branch: int) -> dict[str, int]:
    counts = config.data.patch_counts
    return {"prompt_tokens": prompt, "branch_tokens": branch} | ({"patches": max(counts)} if counts else {})
