"""Rotary positions over one axis or several: how far every pair of a head turns (Su et al., 2021)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.config import RotaryConfig


def rotary_axes(config: RotaryConfig, pairs: int) -> np.ndarray:
    """The axis of positions that each of a head's pairs turns by: [pairs]."""
    if not config.sections:
        return np.zeros(pairs, int)
    if config.layout != "interleaved":
        return np.repeat(np.arange(len(config.sections)), config.sections)
    axes, count = np.zeros(pairs, int), len(config.sections)
    for axis, section in enumerate(config.sections[1:], start=1):
        axes[axis : count * section : count] = axis
    return axes


def rotary_frequencies(config: RotaryConfig, pairs: int) -> Float[Array, " pairs"]:
    """Radians per position of each of a head's pairs."""
    rank, count = jnp.arange(pairs, dtype=jnp.float32), pairs
    if config.layout == "restarted":
        rank = jnp.concatenate([jnp.arange(section, dtype=jnp.float32) for section in config.sections])
        count = jnp.asarray(np.repeat(config.sections, config.sections), jnp.float32)
    frequencies = config.theta ** (-rank / count)
    if config.stretch == 1:
        return frequencies
    if not config.stretch_band:
        return frequencies / config.stretch
    low, high = config.stretch_band
    kept = jnp.clip((frequencies - low) / (high - low), 0, 1)
    return kept * frequencies + (1 - kept) * frequencies / config.stretch


def rotate(
    x: Float[Array, "*E T N H"],
    positions: Int[Array, "*ETA"],
    frequencies: Float[Array, " pairs"],
    axes: np.ndarray,
) -> Float[Array, "*E T N H"]:
    """Turns the pairs (x_i, x_{i + H/2}) by positions[axes[i]] · frequencies[i].

    Args:
        x: queries or keys.
        positions: [*E T A], or [*E T] where all axes have the same position, as in text.
        frequencies: from `rotary_frequencies`.
        axes: from `rotary_axes`.
    """
    half = x.shape[-1] // 2
    along = positions[..., axes] if positions.ndim == x.ndim - 1 else positions[..., None]
    angles = (along.astype(jnp.float32) * frequencies)[..., None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
