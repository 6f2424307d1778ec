"""Wrong configs end here, in one sentence, before anything is computed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmrpt_jax.data.examples import AUGMENTATIONS
from mmrpt_jax.data.records import open_records
from mmrpt_jax.objectives import VARIANTS
from mmrpt_jax.rewards import REWARDS
from mmrpt_jax.scenes import WORLDS
from mmrpt_jax.stages.advantages import COMBINE, SCALES
from mmrpt_jax.stages.checks import (
    ConfigError,
    at_least,
    check_batches,
    check_files,
    check_image_size,
    check_kl,
    check_packing,
    one_of,
)
from mmrpt_jax.stages.mmrpt.arms import ARMS
from mmrpt_jax.stages.mmrpt.rewards import MADE_HERE
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.published import check_published
from mmrpt_jax.stages.rollouts import check_rollouts
from mmrpt_jax.stages.trained import check_training
from mmrpt_jax.stages.weight_checks import check_weights
from mmrpt_jax.training.scoring import KINDS

STAGES = ("caption", "score", "mask", "rl", "evaluate")
_THRESHOLDS = ("quantile", "mean_std", "otsu", "fixed")


def check_config(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> None:
    """Checks names, paths and arithmetic, for `devices`, or for those that there are.

    Raises:
        ConfigError: on the first thing that is wrong.
    """
    for field, values, known in _names(config):
        for value in values:
            one_of(field, value, known)
    _check_data(config)
    check_image_size(config)
    check_published(config, model_config)
    check_files(config)
    check_training(config, model_config, devices)
    check_weights(config, "weights", model_config)
    _check_masks(config)
    _check_rewards(config)
    check_packing(config, "rl", model_config)
    check_kl(config, "rl.loss")
    check_batches(
        config,
        [
            ("caption.batch_size", config.caption.micro_batches),
            ("score.batch_size", 1),
            ("fill.batch_size", 1),
            ("rl.prompts_per_step", config.rl.micro_batches),
            ("finetune.batch_size", 1),
            ("evaluate.batch_size", 1),
        ],
        devices,
    )
    check_rollouts(config, "rl", devices)


def _names(config: ConfigDict) -> list[tuple[str, Sequence[Any], Collection[Any]]]:
    """Fields whose values are names, their values, and the names there are."""
    mask, rl = config.mask, config.rl
    return [
        ("stages", config.stages, STAGES),
        ("arms", config.arms, ARMS),
        ("evaluate.worlds", config.evaluate.worlds, WORLDS),
        ("score.heads", [config.score.heads], ("mean", "max", "top_k", "pooled")),
        ("score.query_shift", [config.score.query_shift], (0, -1)),
        ("mask.sentence_score", [mask.sentence_score], KINDS),
        ("mask.word_score", [mask.word_score], KINDS),
        ("mask.granularity", [mask.granularity], ("sentence_then_word", "sentence", "word")),
        ("mask.sentence_threshold.kind", [mask.sentence_threshold.kind], _THRESHOLDS),
        ("mask.word_threshold.kind", [mask.word_threshold.kind], _THRESHOLDS),
        ("mask.context", [mask.context], ("bidirectional", "left_only")),
        ("mask.blind_reads", [mask.blind_reads], ("caption", "prompt")),
        ("mask.patch_choice", [mask.patch_choice], ("received", "random")),
        ("fill.think", [config.fill.think], ("none", "sentence")),
        ("rl.loss.variant", [rl.loss.variant], VARIANTS),
        ("rl.loss.kl", [rl.loss.kl], ("none", "k2", "k3")),
        ("rl.rewards", list(rl.rewards), (*REWARDS, *MADE_HERE)),
        ("rl.visual_gain.of", [rl.visual_gain.of], ("truth", "answer", "span", "surprise")),
        ("rl.advantage.combine", [rl.advantage.combine], COMBINE),
        ("rl.advantage.scale", [rl.advantage.scale], ("variant", *SCALES)),
    ]


def _check_data(config: ConfigDict) -> None:
    data = config.data
    one_of("data.kind", data.kind, ("scenes", "records"))
    if data.kind == "scenes":
        one_of("data.world", data.world, WORLDS)
    elif not data.path:
        raise ConfigError("config.data.path is empty: name a dataset made by `python -m data_prep.convert`")
    elif not Path(data.path).is_dir():
        raise ConfigError(f"config.data.path: there is no folder {data.path}")
    else:
        _check_files(data)
    one_of("data.augment", data.augment, AUGMENTATIONS)


def _check_files(data: ConfigDict) -> None:
    """Compares the dataset with its manifest before anything is computed."""
    try:
        open_records(data.path, data.split, checksums=data.checksums)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"config.data: {error}") from error


def _check_masks(config: ConfigDict) -> None:
    mask = config.mask
    for name in ("patch_share", "max_blind_probability"):
        if not 0 <= mask[name] <= 1:
            raise ConfigError(f"config.mask.{name} is {mask[name]}: a share lies between 0 and 1")
    if mask.spans_per_prompt < 1:
        raise ConfigError(
            f"config.mask.spans_per_prompt is {mask.spans_per_prompt}: a prompt hides at least 1 span"
        )
    if mask.patch_share and config.data.augment != "none":
        raise ConfigError(
            f"config.data.augment={config.data.augment!r} moves patches that config.mask.patch_share hides: use one"
        )


def _check_rewards(config: ConfigDict) -> None:
    rl = config.rl
    at_least(config, "rl.reward_timeout", 0)
    if not any(rl.rewards.values()):
        raise ConfigError("config.rl.rewards: every weight is 0, so there is nothing to learn from")
    # The empty path would be the current folder.
    encoder = rl.semantic_encoder or "none given"
    if rl.rewards.get("semantic", 0.0) and not Path(encoder).is_dir():
        raise ConfigError(
            f"config.rl.semantic_encoder must name a folder with a BERT-type encoder for 'semantic': {encoder}"
        )
