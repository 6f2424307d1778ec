"""LVRPO on the embedded world: one model understands and draws, aligned by group-relative preferences.

COMMAND: python -m experiments.launch --config=experiments/configs/lvrpo_scenes.py --workdir=runs/lvrpo_scenes
HARDWARE: two CPU cores, 2.6 GiB. WALL TIME: 8 min. SEED: 0.
RESULT: GenEval's accuracy of drawings base 0.12, sft 0.11, lvrpo 0.24 (exact numbers 0.11, 0.11, 0.23), questions
answered 0.72, 0.72, 0.71: at equal compute LVRPO draws twice as much as asked as imitation does, and answers as well.
"""

from typing import Any

from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes
from mmrpt_jax.assets import SCENES_TOKENIZER, UNIFIED_AUTOENCODER, UNIFIED_WEIGHTS


def get_config() -> ConfigDict:
    """Base, supervised control at equal compute and LVRPO, one seed."""
    mmrpt = mmrpt_scenes.get_config()
    config = ConfigDict()
    config.title = "LVRPO on scenes"
    config.method = "lvrpo"
    config.seed = 0
    config.seeds = ()
    config.stages = ("pretrain", "align", "evaluate")
    config.arms = ("base", "sft", "lvrpo")
    config.log_every = 10
    config.save_every = 100
    config.compilation_cache = ""  # a folder; in the workdir if empty
    config.mesh = mmrpt.mesh
    config.init = ConfigDict(
        {
            "weights": str(UNIFIED_WEIGHTS),
            "understanding": "",
            "autoencoder": str(UNIFIED_AUTOENCODER),
            "tokenizer": str(SCENES_TOKENIZER),
            "hf": "",
        }
    )
    config.tokenizer = mmrpt.tokenizer
    config.model = mmrpt.model
    config.train = mmrpt.train
    config.latent = ConfigDict(_latent())
    config.wording = mmrpt.wording
    config.data = ConfigDict(_data())
    config.caption = ConfigDict({"batch_size": 8, "captions_per_image": 1, "image_dropout": 0.1})
    config.question = ConfigDict({"batch_size": 8})
    config.drawing = ConfigDict({"batch_size": 64, "repeats": 2, "text_dropout": 0.1, "shift": 4.0})
    config.pretrain = ConfigDict(_pretrain())
    config.sft = ConfigDict(_sft())
    config.align = ConfigDict(_align())
    config.understanding = ConfigDict(_understanding())
    config.generation = ConfigDict(_generation())
    config.evaluate = ConfigDict(_evaluate())
    return config


def _latent() -> dict[str, Any]:
    """What is drawn: 16 numbers for a patch of 8 x 8 pixels, packed by two, so that a picture is 16 tokens of 64."""
    return {
        "experts": "mot",
        "autoencoder": "linear",  # or "patch": pixels as they are; or "kl": convolutions, with weights of FLUX's shape
        "downsample": 8,
        "channels": 16,  # of "linear" and "kl"
        "pack": 2,
        "prediction": "data",
        # Of "patch": mean of the pixels of pictures, and the inverse of their standard deviation, roughly.
        "shift": 0.8,
        "scale": 3.0,
        # Of drawings, where a public checkpoint leaves it open: height and width in pixels, () for the largest square.
        "image_size": (),
    }


def _data() -> dict[str, Any]:
    """Where pictures, captions, questions and prompts come from; lengths are buckets, in tokens."""
    return {
        "kind": "scenes",
        "world": "biased",
        "augment": "none",
        "scenes": 10_000_000,
        "caption_records": 10_000_000,
        "prompt_lengths": (72, 96),
        "patch_counts": (),  # of a prompt's images; for checkpoints that take images of any size
        "drawing_lengths": (20,),
        "caption_lengths": (48,),
        "branch_lengths": (8,),
    }


def _pretrain() -> dict[str, Any]:
    """Stage 1: imitation of captions, questions and drawings."""
    return {
        "steps": 0,
        "learning_rate": 1.5e-3,
        "learning_rate_warmup": 100,
        "weight_decay": 0.01,
        "weights": {"captions": 1.0, "questions": 1.0, "drawings": 1.0},
    }


def _sft() -> dict[str, Any]:
    """The control of stage 2: imitation of true answers and pictures, from the policies' prompts on."""
    return {
        "learning_rate": 5e-4,
        "learning_rate_warmup": 5,
        "weight_decay": 0.0,
        "weights": {"questions": 1.0, "drawings": 1.0},
    }


def _align() -> dict[str, Any]:
    """Stage 2: groups of answers and groups of drawings, one update."""
    return {
        "steps": 50,
        "learning_rate": 3e-4,
        "learning_rate_warmup": 5,
        "updates_per_rollout": 1,
        "reward_timeout": 600.0,  # seconds that a reward may take for one part of a rollout; 0 for no limit
        "sheet_every": 20,  # steps between pictures of what is drawn; 0 for none
        # Answers are few tokens and drawings many numbers: at equal weights the noise of the former drowns the latter.
        "weights": {"understanding": 0.03, "generation": 1.0},
    }


def _understanding() -> dict[str, Any]:
    """Groups of answers."""
    return {
        "prompts_per_step": 16,
        "oversample": 2,  # prompts drawn per prompt learned from
        "rollout_parts": 1,  # of what is drawn; the host rewards one while the devices sample the next
        "group_size": 8,
        "temperature": 1.0,
        "micro_batches": 1,
        # Lengths of the row that all answers of a group may share in updates, in tokens; of each there is a program.
        "packed_lengths": (),
        "drop_zero_variance": False,
        "rewards": {"exact_match": 1.0, "format": 0.1},
        "advantage": {"combine": "sum_then_normalise", "scale": "variant", "min_std": 1e-4},
        "loss": {"variant": "dapo", "kl": "none", "kl_coefficient": 0.0, "entropy_coefficient": 0.0},
    }


def _generation() -> dict[str, Any]:
    """Groups of drawings."""
    return {
        "prompts_per_step": 32,
        "oversample": 1,
        "rollout_parts": 1,
        "group_size": 8,
        "micro_batches": 1,
        "drop_zero_variance": True,
        "same_noise": False,
        "sampler": {
            "kind": "ode",
            "steps": 10,
            "shift": 4.0,
            "noise_level": 0.7,
            "window": (),  # of an SDE: the steps with noise, all of them if empty
            "reduce": "mean",
            "guidance": 1.0,
            "guidance_interval": (0.0, 1.0),
            "renorm": "global",
        },
        # A weight of 0 is a reward that is not computed. None of these needs another model.
        "rewards": {
            "instruction_strict": 1.0,
            "instruction_soft": 1.0,
            "prompt_likelihood": 0.2,
            "validity": 1.0,
            "yes_probability": 0.0,
            "knowledge": 0.0,
            "image_text_cosine": 0.0,
            "dense_grounding": 0.0,
        },
        "encoder": "",  # of the last two: "package.module:name"
        # Of dense grounding: "max" is the usual form, and a collage of tiles outdoes every picture under it.
        "grounding": {"pooling": "one_to_one", "top_k": 3, "temperature": 0.1, "global_weight": 0.3},
        "questions_at_a_time": 64,
        # Where all rewards but the smallest agree, there is nothing to learn: groups of less spread teach nothing.
        "advantage": {"combine": "sum_then_normalise", "scale": "group", "min_std": 0.05},
        "algorithm": "nft",
        "losses": {
            "grpo": {
                "clip_low": 1e-4,
                "clip_high": 1e-4,
                "kl": "none",
                "kl_coefficient": 0.0,
            },
            "nft": {"beta": 1.0, "looks": 1, "kl": "velocity", "kl_coefficient": 1e-2},
            "dpo": {"beta": 100.0},
            "rwr": {"temperature": 0.2, "looks": 1},
            "best_of": {"looks": 1},
        },
    }


def _evaluate() -> dict[str, Any]:
    """Stage 3: prompts to draw and questions to answer, on which worlds, on how many items."""
    return {
        "drawn_worlds": ("biased", "held_out"),
        "prompts": 96,
        "samples": 4,
        "steps": 20,
        "guidance": 1.0,
        "question_worlds": ("biased", "flipped"),
        "questions": 300,
        "batch_size": 48,
        "caption_tokens": 48,
    }
