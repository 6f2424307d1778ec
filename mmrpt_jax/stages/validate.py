"""Wrong configs end here, in one sentence, before anything is computed."""

import difflib
from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from mmrpt_jax.data.examples import AUGMENTATIONS
from mmrpt_jax.objectives import VARIANTS
from mmrpt_jax.rewards import REWARDS
from mmrpt_jax.scenes import WORLDS
from mmrpt_jax.stages.arms import ARMS
from mmrpt_jax.stages.reinforce import COMBINE
from mmrpt_jax.stages.rewards import MADE_HERE
from mmrpt_jax.training.scoring import KINDS

STAGES = ("caption", "score", "mask", "rl", "evaluate")


class ConfigError(ValueError):
    """A config that cannot run; the message says which field, what it is, and what it may be."""


def check_config(config: ConfigDict) -> None:
    """Checks names, paths and arithmetic.

    Raises:
        ConfigError: on the first thing that is wrong.
    """
    for stage in config.stages:
        _one_of("stages", stage, STAGES)
    for arm in config.arms:
        _one_of("arms", arm, ARMS)
    _check_data(config)
    for world in config.evaluate.worlds:
        _one_of("evaluate.worlds", world, WORLDS)
    _one_of("mask.sentence_score", config.mask.sentence_score, KINDS)
    _one_of("mask.word_score", config.mask.word_score, KINDS)
    _one_of("fill.think", config.fill.think, ("none", "sentence"))
    _one_of("rl.loss.variant", config.rl.loss.variant, VARIANTS)
    _one_of("rl.loss.kl", config.rl.loss.kl, ("none", "k2", "k3"))
    for name in config.rl.rewards:
        _one_of("rl.rewards", name, (*REWARDS, *MADE_HERE))
    if not any(config.rl.rewards.values()):
        raise ConfigError("config.rl.rewards: every weight is 0, so there is nothing to learn from")
    _one_of("rl.visual_gain.of", config.rl.visual_gain.of, ("truth", "answer", "span", "surprise"))
    _one_of("rl.advantage.combine", config.rl.advantage.combine, COMBINE)
    _one_of("rl.advantage.scale", config.rl.advantage.scale, ("variant", "group", "batch", "none", "rloo"))
    # The empty path would be the current folder.
    encoder = config.rl.semantic_encoder or "none given"
    if config.rl.rewards.get("semantic", 0.0) and not Path(encoder).is_dir():
        raise ConfigError(
            f"config.rl.semantic_encoder must name a folder with a BERT-type encoder for 'semantic': {encoder}"
        )
    _check_batches(config)


def _check_data(config: ConfigDict) -> None:
    data = config.data
    _one_of("data.kind", data.kind, ("scenes", "records"))
    if data.kind == "scenes":
        _one_of("data.world", data.world, WORLDS)
    elif not data.path:
        raise ConfigError("config.data.path is empty: name a dataset made by `python -m data_prep.convert`")
    elif not Path(data.path).is_dir():
        raise ConfigError(f"config.data.path: there is no folder {data.path}")
    _one_of("data.augment", data.augment, AUGMENTATIONS)
    for name, path in config.init.items():
        if path and not Path(path).is_file():
            raise ConfigError(f"config.init.{name}: there is no file {path}")


def _check_batches(config: ConfigDict) -> None:
    rl, caption = config.rl, config.caption
    if rl.group_size < 2:
        raise ConfigError(
            f"config.rl.group_size is {rl.group_size}: a group needs at least 2 answers to compare"
        )
    if rl.prompts_per_step % rl.micro_batches:
        raise ConfigError(
            f"config.rl.prompts_per_step={rl.prompts_per_step} does not divide into micro_batches={rl.micro_batches}"
        )
    if caption.batch_size % caption.micro_batches:
        raise ConfigError(
            f"config.caption.batch_size={caption.batch_size} does not divide into micro_batches={caption.micro_batches}"
        )
    if rl.temperature <= 0:
        raise ConfigError(f"config.rl.temperature is {rl.temperature}: answers differ only if it is positive")


def _one_of(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, list(known), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"config.{field}: {value!r} is unknown, did you mean {near!r}? ({', '.join(known)})"
        )
