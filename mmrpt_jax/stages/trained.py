"""What of a model trains, and in which numbers: `config.train`, the same section for both methods."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models import UnifiedConfig, VLMConfig, abstract_parameters, count_parameters
from mmrpt_jax.models.config import ATTENTIONS, DTYPES, REMATS
from mmrpt_jax.models.gathering import with_gathered_weights
from mmrpt_jax.models.lora import PROJECTION_PATHS, adapt, is_adapter
from mmrpt_jax.models.paths import check_pattern, matches, paths_of, split
from mmrpt_jax.stages.checks import ConfigError, at_least, one_of

Sampled = TypeVar("Sampled")


def sampling_as_configured(
    config: ConfigDict, model: VLMConfig | UnifiedConfig, rollout: Callable[..., Sampled]
) -> Callable[..., Sampled]:
    """The rollout, or, if the config asks for it, the same by weights that are fetched once."""
    return with_gathered_weights(rollout, model) if config.train.gather_to_sample else rollout


def with_training(model: VLMConfig, config: ConfigDict) -> VLMConfig:
    """The model in the numbers of `config.train`, with its adapters, its kernel, and with what it stores of its layers.

    Raises:
        ValueError: a target of adapters matches no projection; or the kernel does not suit the model.
    """
    train = config.train
    tower = dataclasses.replace(model.vision.transformer, remat=train.remat)
    model = dataclasses.replace(
        model,
        decoder=dataclasses.replace(model.decoder, attention=train.attention, remat=train.remat),
        vision=dataclasses.replace(model.vision, transformer=tower),
        param_dtype=train.param_dtype,
        compute_dtype=train.compute_dtype,
    )
    if not train.lora.rank:
        return model
    return adapt(model, tuple(train.lora.targets), rank=train.lora.rank, alpha=train.lora.alpha)


def what_trains(config: ConfigDict) -> Callable[[str], bool] | None:
    """Path -> whether a parameter trains: adapters alone where there are any, and nothing frozen; None for all."""
    adapted, frozen = bool(config.train.lora.rank), tuple(config.train.frozen)
    if not (adapted or frozen):
        return None
    return lambda path: (is_adapter(path) or not adapted) and not _any_matches(frozen, path)


def _any_matches(patterns: Iterable[str], path: str) -> bool:
    return any(matches(pattern, path) for pattern in patterns)


def parts_of(config: ConfigDict, params: Any) -> tuple[Any, Any]:
    """(what trains, what is frozen) of a tree of parameters."""
    return split(params, what_trains(config) or (lambda path: True))


def describe_training(config: ConfigDict, params: Any) -> str:
    """A line on how many parameters train, and in which numbers."""
    trained, frozen = (count_parameters(part) for part in parts_of(config, params))
    kept, computed = config.train.param_dtype, config.train.compute_dtype
    return f"trained               {trained:,}, {frozen:,} frozen; kept in {kept}, computed in {computed}"


def check_training(
    config: ConfigDict,
    model_of: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig],
    devices: Sequence[jax.Device] | None = None,
) -> None:
    """Checks `config.train`.

    Args:
        config: with its `init` and `tokenizer`.
        model_of: the model that a config and a number of token ids describe.
        devices: it will run on; None: those that there are.

    Raises:
        ConfigError: on the first thing that is wrong.
    """
    for name in ("param_dtype", "compute_dtype"):
        one_of(f"train.{name}", config.train[name], DTYPES)
    one_of("train.remat", config.train.remat, REMATS)
    at_least(config, "train.max_skipped", 1)
    at_least(config, "train.lora.rank", 0)
    lora, frozen = config.train.lora, tuple(config.train.frozen)
    if lora.rank:
        _check_adapters(config)
    _check_attention(config, model_of, devices)
    if lora.rank or frozen:
        params = abstract_parameters(model_of(config, config.tokenizer.vocab_size))
        for pattern in frozen:
            _check_pattern("train.frozen", pattern, paths_of(params))
        if not jax.tree.leaves(parts_of(config, params)[0]):
            raise ConfigError(f"config.train.frozen={frozen} leaves nothing to train")


def _check_attention(
    config: ConfigDict,
    model_of: Callable[[ConfigDict, int], VLMConfig | UnifiedConfig],
    devices: Sequence[jax.Device] | None,
) -> None:
    kernel = config.train.attention
    one_of("train.attention", kernel, ATTENTIONS)
    if kernel == "xla":
        return
    wanted, found = ATTENTIONS[kernel], (devices or jax.devices())[0].platform
    if found != wanted:
        raise ConfigError(
            f"config.train.attention={kernel!r} is a kernel for {wanted}, and the devices are {found}: say 'xla'"
        )
    if kernel == "cudnn" and config.train.compute_dtype != "bfloat16":
        raise ConfigError(
            "config.train.attention='cudnn' computes in bfloat16: set train.compute_dtype to it"
        )
    try:
        model_of(config, config.tokenizer.vocab_size)
    except ValueError as error:
        raise ConfigError(f"config.train: {error}") from None


def _check_adapters(config: ConfigDict) -> None:
    lora = config.train.lora
    at_least(config, "train.lora.alpha", 0, above=True)
    if not lora.targets:
        raise ConfigError(
            f"config.train.lora.targets is empty: name what adapters of rank {lora.rank} are for"
        )
    for pattern in lora.targets:
        _check_pattern("train.lora.targets", pattern, PROJECTION_PATHS)
    if not (config.init.weights or config.init.hf):
        raise ConfigError(
            f"config.train.lora.rank={lora.rank} adapts weights that are given: name them as config.init.weights or "
            "config.init.hf"
        )


def _check_pattern(field: str, pattern: str, paths: Iterable[str]) -> None:
    try:
        check_pattern(pattern, paths)
    except ValueError as error:
        raise ConfigError(f"config.{field}: {error}") from None
