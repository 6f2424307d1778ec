"""MMRPT on the embedded world: which words need the image, and does it help to reconstruct them?

COMMAND: python -m experiments.launch --config=experiments/configs/mmrpt_scenes.py --workdir=runs/mmrpt_scenes
HARDWARE: two CPU cores, 1.9 GiB. WALL TIME: 6 min 34 s, installation included. SEED: 0.
RESULT: hidden spans filled in the biased / unbiased / flipped world: base 0.30 / 0.18 / 0.15, sft 0.44 / 0.29 / 0.26,
mmrpt 0.38 / 0.30 / 0.28, each ± 0.04. MMRPT ties with supervised training on the same masks at equal compute; three
seeds are in `mmrpt_scenes_study.py`.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mmrpt_jax.assets import SCENES_TOKENIZER, SCENES_WEIGHTS
from mmrpt_jax.data.prompts import Wording


def get_config() -> ConfigDict:
    """Base, supervised control and MMRPT, one seed."""
    config = ConfigDict()
    config.title = "MMRPT on scenes"
    config.method = "mmrpt"
    config.seed = 0
    config.seeds = ()
    config.stages = ("caption", "score", "mask", "rl", "evaluate")
    config.arms = ("base", "sft", "mmrpt")
    config.log_every = 10
    config.save_every = 100
    config.overlays = 12
    config.compilation_cache = ""  # a folder; in the workdir if empty
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    # Or a public checkpoint, which brings its own tokenizer and model: `hf` is its directory, or "hub:owner/name".
    config.init = ConfigDict({"weights": str(SCENES_WEIGHTS), "tokenizer": str(SCENES_TOKENIZER), "hf": ""})
    config.tokenizer = ConfigDict({"vocab_size": 1024})
    config.wording = ConfigDict(dataclasses.asdict(Wording()))
    config.data = ConfigDict(_data())
    config.model = ConfigDict(_model())
    config.train = ConfigDict(_train())
    config.caption = ConfigDict(_caption())
    config.score = ConfigDict(_score())
    config.mask = ConfigDict(_mask())
    config.fill = ConfigDict(_fill())
    config.rl = ConfigDict(_rl())
    # After training, on a small biased question set; none in the main job.
    config.finetune = ConfigDict({"steps": 0, "questions": 256, "batch_size": 32, "learning_rate": 5e-4})
    config.evaluate = ConfigDict(_evaluate())
    return config


def _data() -> dict[str, Any]:
    """Where images and captions come from; lengths are buckets, in tokens."""
    return {
        "kind": "scenes",
        "world": "biased",
        "path": "",
        "checksums": False,
        "split": "train",
        "augment": "none",
        "records": 2000,
        "caption_records": 10_000_000,
        "prompt_lengths": (72, 120),
        "patch_counts": (),  # of a prompt's images; for checkpoints that take images of any size
        "caption_lengths": (24, 48),
        "branch_lengths": (8,),
    }


def _model() -> dict[str, Any]:
    """A decoder of four layers behind a vision tower of three."""
    return {
        "decoder": {
            "width": 128,
            "layers": 4,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 32,
            "mlp": 384,
            "qk_norm": True,
            "unroll": 4,
        },
        "vision": {
            "image_height": 64,
            "image_width": 64,
            "patch_size": 8,
            "transformer": {
                "width": 128,
                "layers": 3,
                "heads": 4,
                "kv_heads": 4,
                "head_dim": 32,
                "mlp": 256,
                "qk_norm": True,
                "unroll": 3,
            },
        },
    }


def _train() -> dict[str, Any]:
    """What trains, and in which numbers, in every stage; patterns are regular expressions over parameter paths."""
    return {
        "frozen": (),  # such as "vision" or "decoder/layers/.*norm"
        "param_dtype": "float32",  # what weights are kept in: "bfloat16" halves them, and drops their small steps
        "compute_dtype": "float32",  # "bfloat16" is fast on accelerators
        "max_skipped": 10,  # so many updates in a row with a loss or gradient that is not finite end the run
        # Whether a rollout fetches what `fsdp` splits of the weights once, instead of for every token: faster, for the
        # memory of a device's part of `tensor` of all weights.
        "gather_to_sample": False,
        # "xla"; or a kernel, where images are causal too: "splash" on TPUs (prompts, and updates whole unless
        # answers are packed), "cudnn" on GPUs (prompts).
        "attention": "xla",
        # What the backward pass computes anew instead of storing it: "none"; all of a layer but what attention gave,
        # "keep_attention", which saves most of the memory for little time; or "full".
        "remat": "none",
        # Of rank 0 there are no adapters; otherwise they alone train.
        "lora": {"rank": 0, "alpha": 16.0, "targets": ("decoder/layers/(query|value)",)},
    }


def _caption() -> dict[str, Any]:
    """Stage 1, and the control that goes on with it; no steps of its own here: the base comes with the package."""
    return {
        "steps": 0,
        "batch_size": 32,
        "captions_per_image": 3,
        "learning_rate": 2e-3,
        "warmup": 200,
        "micro_batches": 1,
        "image_dropout": 0.1,
        "infill_every": 2,  # every second batch asks for blanks
    }


def _score() -> dict[str, Any]:
    """Stage 2: whose attention is read."""
    return {"batch_size": 64, "layer_fractions": (0.5, 1.0), "heads": "mean", "top_k": 1, "query_shift": 0}


def _mask() -> dict[str, Any]:
    """Stage 3: which words are cut out."""
    return {
        "sentence_score": "attention",
        "word_score": "llr",
        "granularity": "sentence_then_word",
        "sentence_threshold": {"kind": "quantile", "quantile": 0.5, "num_std": 1.0, "value": 0.5},
        "word_threshold": {"kind": "quantile", "quantile": 0.7, "num_std": 1.0, "value": 0.5},
        "max_spans": 3,
        "max_words": 3,
        "spans_per_prompt": 1,
        "context": "left_only",
        "blind_reads": "caption",  # or "prompt": what tells how likely a span is without the image
        "max_blind_probability": 0.9,
        "patch_share": 0.0,
        "patch_choice": "received",
    }


def _fill() -> dict[str, Any]:
    """Supervised training on masked captions: the format warm-up and the control."""
    return {
        "think": "none",
        "warmup_steps": 0,  # the base knows the format
        "batch_size": 32,
        "learning_rate": 7e-4,
        "learning_rate_warmup": 10,
    }


def _rl() -> dict[str, Any]:
    """Stage 4: rollouts, rewards, advantages, loss."""
    return {
        "steps": 80,
        "prompts_per_step": 32,
        "group_size": 8,
        "temperature": 1.0,
        "learning_rate": 6e-4,
        "learning_rate_warmup": 5,
        "micro_batches": 1,
        # Lengths of the row that all answers of a group may share in updates, in tokens; of each there is a program.
        "packed_lengths": (),
        "updates_per_rollout": 1,
        "train_on_truncated": True,
        "oversample": 1,  # prompts drawn per prompt learned from
        "rollout_parts": 1,  # of what is drawn; the host rewards one while the devices sample the next
        "drop_zero_variance": False,
        "refresh_every": 0,
        "semantic_encoder": "",
        "reward_timeout": 600.0,  # seconds that a reward may take for one part of a rollout; 0 for no limit
        # A weight of 0 is a reward that is not computed.
        "rewards": {
            "exact_match": 0.2,
            "grounded_match": 1.0,
            "format": 0.1,
            "prefix": 0.0,
            "token_f1": 0.0,
            "visual_gain": 0.0,
            "semantic": 0.0,
            "repetition": 0.0,
            "length": 0.0,
            "overlong": 0.0,
        },
        "visual_gain": {"of": "surprise", "cap": 3.0},
        "advantage": {"combine": "sum_then_normalise", "scale": "none", "min_std": 1e-4},
        "loss": {
            "variant": "dapo",
            "kl": "none",
            "kl_coefficient": 0.0,
            "entropy_coefficient": 0.0,
            "clip_low": placeholder(float),
            "clip_high": placeholder(float),
        },
    }


def _evaluate() -> dict[str, Any]:
    """Stage 5: on which worlds, on how many items."""
    return {
        "worlds": ("biased", "unbiased", "flipped", "held_out"),
        "batch_size": 64,
        "fill_items": 512,
        "cloze_items": 300,
        "split": "dev",
    }
