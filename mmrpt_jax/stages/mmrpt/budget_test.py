import pytest
from ml_collections import ConfigDict

from mmrpt_jax.stages.mmrpt.budget import caption_flops, policy_flops, supervised_flops
from mmrpt_jax.training.compute import forward_flops

LONG = {"prompt_tokens": 30, "branch_tokens": 9}


@pytest.fixture
def config():
    lengths = {
        "prompt_lengths": (20, 30),
        "caption_lengths": (8, 16),
        "branch_lengths": (5, 9),
        "patch_counts": (),
    }
    caption = {"batch_size": 6, "captions_per_image": 3, "infill_every": 0}
    rl = {
        "steps": 10,
        "prompts_per_step": 4,
        "group_size": 8,
        "updates_per_rollout": 1,
        "oversample": 1,
        "refresh_every": 0,
        "rewards": {"exact_match": 1.0},
        "visual_gain": {"of": "answer"},
        "loss": {"kl": "none"},
    }
    fill = {"warmup_steps": 5, "batch_size": 7}
    mask = {"blind_reads": "caption", "max_spans": 3, "spans_per_prompt": 1}
    return ConfigDict({"data": lengths, "caption": caption, "fill": fill, "rl": rl, "mask": mask})


def test_supervised_and_caption_steps(config, tiny_model):
    # Forward and backward: three times the forward pass, at the longest fill and the shortest caption prompt.
    assert supervised_flops(config, tiny_model) == 3 * forward_flops(tiny_model, prompts=7, group=1, **LONG)
    short = {"prompt_tokens": 20, "branch_tokens": 16}
    captions = 3 * forward_flops(tiny_model, prompts=6, group=3, **short)
    assert caption_flops(config, tiny_model) == captions
    # Every fourth batch is of blanks.
    config.caption.infill_every = 4
    blanks = 3 * forward_flops(tiny_model, prompts=6, group=1, **LONG)
    assert caption_flops(config, tiny_model) == pytest.approx((3 * captions + blanks) / 4)


@pytest.mark.parametrize(
    ("rewards", "of", "kl", "updates", "passes"),
    [
        # A rollout is one pass, an update three.
        ({"exact_match": 1.0}, "answer", "none", 1, 1 + 3),
        ({"exact_match": 1.0}, "answer", "k3", 1, 1 + 1 + 3),
        ({"visual_gain": 0.5}, "answer", "none", 1, 1 + 2 + 3),
        ({"grounded_match": 0.5}, "truth", "k2", 2, 1 + 2 + 1 + 6),
        # What stage 2 found out costs nothing here, and a weight of 0 computes nothing.
        ({"visual_gain": 0.5}, "surprise", "none", 1, 1 + 3),
        ({"visual_gain": 0.0}, "answer", "none", 1, 1 + 3),
    ],
)
def test_what_a_policy_step_spends(config, tiny_model, rewards, of, kl, updates, passes):
    config.rl.rewards = ConfigDict(rewards)
    config.rl.visual_gain.of, config.rl.loss.kl, config.rl.updates_per_rollout = of, kl, updates
    one = forward_flops(tiny_model, prompts=4, group=8, **LONG)
    warmup = 5 * 3 * forward_flops(tiny_model, prompts=7, group=1, **LONG)
    assert policy_flops(config, tiny_model, 50) == pytest.approx(warmup + 10 * passes * one)


def test_candidates_and_refreshed_masks_are_charged(config, tiny_model):
    plain = policy_flops(config, tiny_model, 50)
    one = forward_flops(tiny_model, prompts=4, group=8, **LONG)
    config.rl.oversample = 3
    assert policy_flops(config, tiny_model, 50) == pytest.approx(plain + 10 * 2 * one)
    # Ten steps in segments of four: masks are made anew twice, by three passes over 50 captions each.
    config.rl.oversample, config.rl.refresh_every = 1, 4
    captions = forward_flops(tiny_model, prompts=50, prompt_tokens=20, group=1, branch_tokens=16)
    assert policy_flops(config, tiny_model, 50) == pytest.approx(plain + 2 * 3 * captions)
    # Each of up to three masked captions per caption is read once more.
    config.mask.blind_reads = "prompt"
    masks = forward_flops(tiny_model, prompts=150, group=1, **LONG)
    assert policy_flops(config, tiny_model, 50) == pytest.approx(plain + 2 * (3 * captions + masks))
    # One segment is not refreshed.
    config.rl.refresh_every = 10
    assert policy_flops(config, tiny_model, 50) == pytest.approx(plain)
