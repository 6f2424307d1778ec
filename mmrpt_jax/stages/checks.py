"""What any config is checked for before anything is computed; whatever is wrong is told in one sentence."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.reporting.command_line import UsageError
from mmrpt_jax.scenes import IMAGE_SIZE
from mmrpt_jax.stages.completion import is_complete


class ConfigError(UsageError):
    """A config that cannot run; the message says which field, what it is, and what it may be."""


def one_of(field: str, value: Any, known: Collection[Any]) -> None:
    """Checks a name.

    Raises:
        ConfigError: it is not `known`; the message suggests the nearest one.
    """
    if value not in known:
        names = [str(name) for name in known]
        near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"config.{field}: {value!r} is unknown, did you mean {near!r}? ({', '.join(names)})"
        )


def check_files(config: ConfigDict) -> None:
    """Checks that the files of `config.init` are there, where they are named; of `hf`, see `check_published`.

    Raises:
        ConfigError: one is not.
    """
    for name, path in config.init.items():
        if name != "hf" and path and not Path(path).is_file():
            raise ConfigError(f"config.init.{name}: there is no file {path}")


def check_stages(
    config: ConfigDict, workdir: str | Path, needs: Mapping[str, Mapping[str, Sequence[str]]]
) -> None:
    """Checks that what a stage begins with is there, or made before it.

    Args:
        config: with its `stages`.
        workdir: the folder of the run.
        needs: stage -> earlier stage -> what of it is needed, as folders in `workdir`.

    Raises:
        ConfigError: something is missing.
    """
    for stage in config.stages:
        for earlier, folders in needs.get(stage, {}).items():
            missing = [name for name in folders if not is_complete(Path(workdir) / name)]
            if missing and earlier not in config.stages:
                raise ConfigError(
                    f"config.stages: {stage!r} needs {Path(workdir) / missing[0]}, which is not there or not finished: "
                    f"put {earlier!r} before it"
                )


def check_image_size(config: ConfigDict) -> None:
    """Checks that the model takes the pictures of the embedded world as they are, where the data are scenes.

    Raises:
        ConfigError: it does not.
    """
    for side in ("height", "width"):
        size = config.model.vision[f"image_{side}"]
        if config.data.kind == "scenes" and size != IMAGE_SIZE and not config.init.hf:
            raise ConfigError(
                f"config.model.vision.image_{side} is {size}: scenes are {IMAGE_SIZE} x {IMAGE_SIZE} pixels"
            )


def value_of(config: ConfigDict, field: str) -> Any:
    """The value of "section.….name"."""
    value: Any = config
    for part in field.split("."):
        value = value[part]
    return value


def at_least(config: ConfigDict, field: str, least: float, *, above: bool = False) -> None:
    """Checks a number.

    Args:
        config: holds it.
        field: "section.….name".
        least: what it may not be below.
        above: it may not be `least` either.

    Raises:
        ConfigError: it is too small.
    """
    value = value_of(config, field)
    if value < least or (above and value == least):
        raise ConfigError(f"config.{field} is {value}: it must be {'above' if above else 'at least'} {least}")


def check_kl(config: ConfigDict, *sections: str) -> None:
    """Checks that no section weighs a KL term that it does not have.

    Raises:
        ConfigError: one does.
    """
    for section in sections:
        loss = value_of(config, section)
        at_least(config, f"{section}.kl_coefficient", 0)
        if loss.kl == "none" and loss.kl_coefficient:
            raise ConfigError(
                f"config.{section}.kl_coefficient is {loss.kl_coefficient} and config.{section}.kl is 'none': name "
                "a KL, or set the coefficient to 0"
            )


def check_packing(config: ConfigDict, section: str, model_of: Callable[[ConfigDict, int], VLMConfig]) -> None:
    """Checks that the answers of a group of `config.<section>` can share a row of the lengths that it names.

    Raises:
        ConfigError: they cannot.
    """
    lengths = tuple(config[section].packed_lengths)
    if not lengths:
        return
    field = f"config.{section}.packed_lengths={lengths}"
    if not all(isinstance(length, int) and length > 0 for length in lengths) or len({*lengths}) < len(
        lengths
    ):
        raise ConfigError(f"{field}: name different numbers of tokens, 1 or more, or none at all: ()")
    if any(model_of(config, config.tokenizer.vocab_size).decoder.local_layers):
        raise ConfigError(
            f"{field}: the model has sliding windows, which cannot tell answers in one row apart; say ()"
        )


def check_batches(
    config: ConfigDict, batches: Iterable[tuple[str, int]], devices: Sequence[jax.Device] | None = None
) -> None:
    """Checks that batches divide into micro-batches, and those over the devices.

    Args:
        config: with its `mesh`.
        batches: "section.field" of each batch size, and its number of micro-batches.
        devices: of the mesh; None: those that there are.

    Raises:
        ConfigError: one does not, or the mesh does not cover the devices.
    """
    shards = prompt_shards(config, devices)
    for field, parts in batches:
        section, name = field.split(".")
        size = config[section][name]
        if size % parts:
            raise ConfigError(f"config.{field}={size} does not divide into micro_batches={parts}")
        if size // parts % shards:
            raise ConfigError(
                f"config.{field}: {size // parts} prompts at a time do not divide over {shards} devices (data · fsdp)"
            )


def prompt_shards(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> int:
    """Parts that a batch is split into over the mesh.

    Raises:
        ConfigError: the mesh does not cover the devices.
    """
    try:
        mesh = make_mesh(**config.mesh.to_dict(), devices=devices)
    except ValueError as error:
        raise ConfigError(f"config.mesh: {error}") from None
    return mesh.shape["data"] * mesh.shape["fsdp"]
