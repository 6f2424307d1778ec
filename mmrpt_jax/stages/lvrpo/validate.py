"""Wrong configs end here, in one sentence, before anything is computed."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models.families.flux import file_config
from mmrpt_jax.models.unified_config import EXPERTS, PREDICTIONS
from mmrpt_jax.objectives import FLOW_KL_KINDS, VARIANTS
from mmrpt_jax.rewards import IMAGE_REWARDS, READ_GAIN, REWARDS
from mmrpt_jax.rewards.grounding import POOLINGS
from mmrpt_jax.scenes import IMAGE_SIZE, WORLDS
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
    value_of,
)
from mmrpt_jax.stages.lvrpo.align import image_sampler
from mmrpt_jax.stages.lvrpo.arms import ARMS
from mmrpt_jax.stages.lvrpo.rewards import EXTERNAL, open_encoder
from mmrpt_jax.stages.opening import model_config, unified_config
from mmrpt_jax.stages.published import check_published
from mmrpt_jax.stages.rollouts import check_rollouts
from mmrpt_jax.stages.trained import check_training
from mmrpt_jax.stages.weight_checks import check_shapes, check_weights
from mmrpt_jax.training.image_policy import IMAGE_LOSSES

STAGES = ("pretrain", "align", "evaluate")
_COUNTS = (
    "log_every",
    "save_every",
    "latent.downsample",
    "latent.channels",
    "latent.pack",
    "drawing.repeats",
    "align.steps",
    "align.updates_per_rollout",
    "generation.sampler.steps",
    "generation.questions_at_a_time",
    "generation.losses.nft.looks",
    "generation.losses.rwr.looks",
    "generation.losses.best_of.looks",
    "evaluate.prompts",
    "evaluate.samples",
    "evaluate.steps",
    "evaluate.questions",
    "evaluate.caption_tokens",
)
_POSITIVE = (
    "drawing.shift",
    "generation.sampler.shift",
    "generation.losses.nft.beta",
    "generation.losses.rwr.temperature",
)


def check_config(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> None:
    """Checks names, paths and arithmetic, for `devices`, or for those that there are.

    Raises:
        ConfigError: on the first thing that is wrong.
    """
    for field, values, known in _names(config):
        for value in values:
            one_of(field, value, known)
    for field in _COUNTS:
        at_least(config, field, 1)
    for field in _POSITIVE:
        at_least(config, field, 0, above=True)
    for field in ("arms", "evaluate.drawn_worlds"):
        if "evaluate" in config.stages and not value_of(config, field):
            raise ConfigError(f"config.{field} is empty, so there is nothing to evaluate")
    check_image_size(config)
    check_files(config)
    check_published(config, unified_config)
    _check_latents(config)
    check_training(config, unified_config, devices)
    check_weights(config, "weights", unified_config)
    check_weights(config, "understanding", model_config)
    _check_autoencoder(config)
    _check_imitation(config)
    _check_sampler(config)
    _check_rewards(config)
    check_packing(config, "understanding", lambda *of: unified_config(*of).vlm)
    check_kl(config, "understanding.loss", "generation.losses.grpo", "generation.losses.nft")
    check_batches(
        config,
        [
            ("caption.batch_size", 1),
            ("question.batch_size", 1),
            ("drawing.batch_size", 1),
            ("understanding.prompts_per_step", config.understanding.micro_batches),
            ("generation.prompts_per_step", config.generation.micro_batches),
            ("generation.questions_at_a_time", 1),
            ("evaluate.batch_size", 1),
        ],
        devices,
    )
    for section in ("understanding", "generation"):
        check_rollouts(config, section, devices)


def _names(config: ConfigDict) -> list[tuple[str, Sequence[Any], Collection[Any]]]:
    """Fields whose values are names, their values, and the names there are."""
    understanding, generation = config.understanding, config.generation
    fields = [
        ("stages", config.stages, STAGES),
        ("arms", config.arms, ARMS),
        ("data.kind", [config.data.kind], ("scenes",)),
        ("data.world", [config.data.world], WORLDS),
        ("pretrain.weights", list(config.pretrain.weights), ("captions", "questions", "drawings")),
        ("sft.weights", list(config.sft.weights), ("questions", "drawings")),
        ("latent.experts", [config.latent.experts], EXPERTS),
        ("latent.autoencoder", [config.latent.autoencoder], ("linear", "patch", "kl")),
        ("latent.prediction", [config.latent.prediction], PREDICTIONS),
        ("evaluate.drawn_worlds", config.evaluate.drawn_worlds, WORLDS),
        ("evaluate.question_worlds", config.evaluate.question_worlds, WORLDS),
        ("understanding.loss.variant", [understanding.loss.variant], VARIANTS),
        ("understanding.loss.kl", [understanding.loss.kl], ("none", "k2", "k3")),
        ("understanding.rewards", list(understanding.rewards), REWARDS),
        ("generation.rewards", list(generation.rewards), (*IMAGE_REWARDS, *EXTERNAL)),
        ("generation.sampler.kind", [generation.sampler.kind], ("ode", "flow_sde", "constant_sde")),
        ("generation.sampler.reduce", [generation.sampler.reduce], ("mean", "sum")),
        ("generation.sampler.renorm", [generation.sampler.renorm], ("none", "global")),
        ("generation.grounding.pooling", [generation.grounding.pooling], POOLINGS),
        ("generation.algorithm", [generation.algorithm], IMAGE_LOSSES),
        ("generation.losses.grpo.kl", [generation.losses.grpo.kl], ("none", *FLOW_KL_KINDS)),
        ("generation.losses.nft.kl", [generation.losses.nft.kl], ("none", "velocity")),
    ]
    scales = {"understanding": ("variant", *SCALES), "generation": SCALES}
    for section, known in scales.items():
        advantage = config[section].advantage
        fields.append((f"{section}.advantage.combine", [advantage.combine], COMBINE))
        fields.append((f"{section}.advantage.scale", [advantage.scale], known))
    return fields


def _check_latents(config: ConfigDict) -> None:
    if config.init.hf:
        _check_drawn_size(config)
        return
    latent, vision = config.latent, config.model.vision
    token = latent.downsample * latent.pack
    for side in ("height", "width"):
        size = vision[f"image_{side}"]
        if size % token:
            raise ConfigError(
                f"config.latent: a token holds {token} x {token} pixels (downsample · pack), which do not divide the "
                f"{side} of {size}"
            )


def _check_drawn_size(config: ConfigDict) -> None:
    """Checks that a public checkpoint draws what the verifier reads; that it draws, `check_published` has found."""
    height, width = unified_config(config, config.tokenizer.vocab_size).latent.image_size
    if height != width or height % IMAGE_SIZE:
        raise ConfigError(
            f"config.latent.image_size: drawings of {height}x{width} pixels are not read: take a square of a multiple "
            f"of {IMAGE_SIZE}"
        )


def _check_autoencoder(config: ConfigDict) -> None:
    latent = config.latent
    if config.init.hf and latent.autoencoder != "kl":
        raise ConfigError(
            f"config.latent.autoencoder is {latent.autoencoder!r}: the checkpoint of config.init.hf draws the latents "
            "of the one beside it, 'kl'"
        )
    if latent.autoencoder == "kl" and not config.init.hf:
        _check_convolutions(config)
    if latent.autoencoder != "linear":
        return
    pixels = 3 * latent.downsample**2
    if latent.channels > pixels:
        raise ConfigError(
            f"config.latent.channels is {latent.channels}: a patch of {latent.downsample} x {latent.downsample} "
            f"pixels has no more than {pixels} numbers"
        )
    if config.init.autoencoder:
        shapes = {"mean": (pixels,), "basis": (pixels, latent.channels), "scale": (1,)}
        check_shapes("init.autoencoder", config.init.autoencoder, shapes)


def _check_convolutions(config: ConfigDict) -> None:
    path, latent = config.init.autoencoder, config.latent
    if not path:
        raise ConfigError(
            "config.latent.autoencoder='kl' needs trained weights: name their file as config.init.autoencoder, or a "
            "checkpoint that has them as config.init.hf"
        )
    try:
        found = file_config(Path(path))
    except ValueError as error:
        raise ConfigError(f"config.init.autoencoder: {error}") from error
    if (found.channels, found.downsample) != (latent.channels, latent.downsample):
        raise ConfigError(
            f"config.latent: channels is {latent.channels} and downsample {latent.downsample}, those of {path} are "
            f"{found.channels} and {found.downsample}"
        )


def _check_imitation(config: ConfigDict) -> None:
    """Checks that there is something to imitate where anything is imitated."""
    imitates = {
        "pretrain": "pretrain" in config.stages and config.pretrain.steps,
        "sft": any(ARMS[name].method == "imitation" for name in config.arms),
    }
    for section, needed in imitates.items():
        if needed and not any(config[section].weights.values()):
            raise ConfigError(f"config.{section}.weights: every weight is 0, so there is nothing to imitate")


def _check_sampler(config: ConfigDict) -> None:
    cfg = config.generation
    if len(cfg.sampler.window) not in (0, 2):
        raise ConfigError(
            f"config.generation.sampler.window is {tuple(cfg.sampler.window)}: give its first step and the one "
            "behind its last, or nothing"
        )
    try:
        sampler = image_sampler(cfg.sampler)
    except ValueError as error:
        raise ConfigError(f"config.generation.sampler: {error}") from None
    if cfg.algorithm == "grpo" and (not sampler.noisy_steps[1] or cfg.sampler.noise_level <= 0):
        raise ConfigError(
            "config.generation.algorithm='grpo' learns from densities, which only steps with noise have: choose an SDE "
            "with a noise_level above 0"
        )
    if "shuffled" in config.arms and cfg.algorithm not in ("grpo", "nft"):
        raise ConfigError(
            "config.arms: 'shuffled' exchanges advantages, and "
            f"config.generation.algorithm={cfg.algorithm!r} learns from rewards: leave it out, or choose grpo or nft"
        )
    check_guidance(config, max(cfg.sampler.guidance, config.evaluate.guidance))


def check_guidance(config: ConfigDict, scale: float) -> None:
    """Checks that a model trained by `config` can be steered with `scale`.

    Raises:
        ConfigError: it never saw the prompt to steer away from.
    """
    if scale > 1 and not config.drawing.text_dropout:
        raise ConfigError(
            f"guidance of {scale} steers away from a prompt without text, which training never shows: raise "
            "config.drawing.text_dropout above 0"
        )


def _check_rewards(config: ConfigDict) -> None:
    at_least(config, "align.reward_timeout", 0)
    for section in ("understanding", "generation"):
        if not any(config[section].rewards.values()):
            raise ConfigError(
                f"config.{section}.rewards: every weight is 0, so there is nothing to learn from"
            )
    for name, weight in config.understanding.rewards.items():
        if weight and name in READ_GAIN:
            raise ConfigError(
                f"config.understanding.rewards.{name} is {weight}: it reads the visual gain of an answer, which only "
                "mmrpt computes; set it to 0"
            )
    encoder = open_encoder(config.generation.encoder)
    for name, methods in EXTERNAL.items():
        if config.generation.rewards.get(name, 0.0) and not all(hasattr(encoder, m) for m in methods):
            raise ConfigError(
                f"config.generation.rewards.{name} needs an image-text encoder with {' and '.join(methods)}: name one, "
                "or a function that makes it, as config.generation.encoder='package.module:name'"
            )
