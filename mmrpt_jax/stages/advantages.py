"""How members of a group are compared, as configs describe it."""

import functools
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.objectives import (
    best_of_group_weights,
    gdpo,
    group_advantages,
    normalise_then_sum,
    rloo_advantages,
    sum_then_normalise,
    zero_variance_groups,
)

COMBINE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"sum_then_normalise": sum_then_normalise, "normalise_then_sum": normalise_then_sum, "gdpo": gdpo}
)
SCALES = ("group", "batch", "none", "rloo")


def make_advantage(cfg: ConfigDict, *, scale: str | None = None) -> Callable[..., Any]:
    """(rewards [B G K], weights [K], valid=[B G K]) -> [B G], compiled.

    Args:
        cfg: `combine`, `scale` and `min_std`.
        scale: in place of the config's.
    """
    scale = cfg.scale if scale is None else scale
    if scale == "rloo":
        one: Callable[..., Any] = rloo_advantages
    else:
        one = functools.partial(group_advantages, scale=scale, min_std=cfg.min_std)
    return jax.jit(functools.partial(COMBINE[cfg.combine], advantage_fn=one))


def make_best_of_advantage() -> Callable[..., Any]:
    """Imitation of the best: G for the best of a group, in equal shares to those that tie, and 0 for the rest.

    G, and not 1, so that a mean over all members is the mean loss of the best ones. Where all tie nobody is imitated:
    the best of eight wrong answers is a wrong one.
    """

    @jax.jit
    def advantage(rewards, weights, *, valid):
        totals = jnp.sum(jnp.where(valid, rewards, 0.0) * weights, axis=-1)
        scorable = valid.any(axis=-1)
        shares = best_of_group_weights(totals, valid=scorable) * totals.shape[-1]
        return jnp.where(zero_variance_groups(totals, valid=scorable)[..., None], 0.0, shares)

    return advantage


def shuffled(advantage: Callable[..., Any]) -> Callable[..., Any]:
    """A control: what one member of a group earned is credited to another. Nothing can be learned from it."""

    def shuffle(rewards, weights, *, valid):
        # Drawn from the rewards themselves, so that a resumed run shuffles alike.
        rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(rewards).tobytes()))
        order = rng.permuted(np.broadcast_to(np.arange(rewards.shape[1]), rewards.shape[:2]), axis=1)[
            ..., None
        ]
        taken = (np.take_along_axis(np.asarray(values), order, axis=1) for values in (rewards, valid))
        values, known = taken
        return advantage(values, weights, valid=known)

    return shuffle
