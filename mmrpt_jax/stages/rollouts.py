"""How many prompts a step draws, and in how many parts, as a section of a config that has rollouts says."""

from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from mmrpt_jax.stages.checks import ConfigError, at_least, prompt_shards


def candidates(cfg: ConfigDict) -> int:
    """Prompts of a step; the groups of `cfg.prompts_per_step` of them are learned from."""
    return cfg.prompts_per_step * cfg.oversample


def rollout_size(cfg: ConfigDict) -> int:
    """Prompts that are sampled at once."""
    return candidates(cfg) // cfg.rollout_parts


def answer_layouts(cfg: ConfigDict) -> int:
    """Shapes that a group's answers have in updates: a row each, or one row of each of the lengths that are named."""
    return 1 + len(cfg.packed_lengths)


def check_rollouts(config: ConfigDict, section: str, devices: Sequence[jax.Device] | None = None) -> None:
    """Checks that `config.<section>` draws groups that can be compared, in parts that divide over the devices.

    Args:
        config: with its `mesh`.
        section: of a method's rollouts.
        devices: of the mesh; None: those that there are.

    Raises:
        ConfigError: it does not.
    """
    at_least(config, f"{section}.group_size", 2)
    for field in ("oversample", "rollout_parts"):
        at_least(config, f"{section}.{field}", 1)
    cfg = config[section]
    if "temperature" in cfg:
        at_least(config, f"{section}.temperature", 0, above=True)
    field = f"config.{section}.rollout_parts={cfg.rollout_parts}"
    if candidates(cfg) % cfg.rollout_parts:
        raise ConfigError(
            f"{field}: the {candidates(cfg)} prompts of a step (prompts_per_step · oversample) do not divide into as "
            "many parts"
        )
    shards = prompt_shards(config, devices)
    if rollout_size(cfg) % shards:
        raise ConfigError(
            f"{field}: {rollout_size(cfg)} prompts at a time do not divide over {shards} devices (data · fsdp)"
        )
