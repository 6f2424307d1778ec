"""Latents of an image and tokens of the decoder: how one becomes the other and back."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.layers import Linear
from mmrpt_jax.models.unified_config import LatentConfig

TIME_FEATURES = 256
# Below this time a velocity is not divided by less: errors in the data would grow without bound.
_MIN_TIME = 0.05


def pack_latents(latents: Float[Array, "*E h w C"], pack: int) -> Float[Array, "*E I features"]:
    """Makes squares of `pack` x `pack` latents into tokens, row by row; in a token row, column, channel (BAGEL)."""
    *leading, height, width, channels = latents.shape
    rows, columns = height // pack, width // pack
    squares = latents.reshape(*leading, rows, pack, columns, pack, channels).swapaxes(-4, -3)
    return squares.reshape(*leading, rows * columns, pack * pack * channels)


def unpack_latents(
    tokens: Float[Array, "*E I features"], grid: tuple[int, int], pack: int
) -> Float[Array, "*E h w C"]:
    """Undoes `pack_latents`; `grid` is the number of tokens per column and per row."""
    *leading, _, features = tokens.shape
    (rows, columns), channels = grid, features // pack**2
    squares = tokens.reshape(*leading, rows, columns, pack, pack, channels).swapaxes(-4, -3)
    return squares.reshape(*leading, rows * pack, columns * pack, channels)


def time_features(times: Float[Array, "*E"], features: int = TIME_FEATURES) -> Float[Array, "*E F"]:
    """cos(t·ω) ‖ sin(t·ω) with ω_i = 10000^(−2i/F), F features (DiT, arXiv 2212.09748); t in [0, 1], not scaled."""
    half = features // 2
    angles = times[..., None].astype(jnp.float32) * _falling_frequencies(half)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def fixed_positions(rows: Int[Array, "*E"], columns: Int[Array, "*E"], width: int) -> Float[Array, "*E D"]:
    """Fixed positions in a grid: sin ‖ cos of the column, then sin ‖ cos of the row (MAE, BAGEL).

    Each of the four parts has D/4 frequencies 10000^(−4i/D). BAGEL keeps these values for a large square and picks
    them from there; they depend on row and column alone, so the size of that square does not matter.
    """
    frequencies = _falling_frequencies(width // 4)

    def encode(place):
        angles = place[..., None].astype(jnp.float32) * frequencies
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

    return jnp.concatenate([encode(columns), encode(rows)], axis=-1)


def grid_positions(rows: int, columns: int, width: int) -> Float[Array, "I D"]:
    """`fixed_positions` of a whole grid, row by row."""
    down, across = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
    return fixed_positions(down.reshape(-1), across.reshape(-1), width)


def _falling_frequencies(count: int) -> Float[Array, " count"]:
    return 10_000.0 ** (-jnp.arange(count, dtype=jnp.float32) / count)


class LatentTokens(nn.Module):
    """The way in, `embed`, and the way out, `flow`; both linear, as in BAGEL."""

    config: LatentConfig
    width: int

    def setup(self):
        """Declares both projections and the embedding of time."""
        self.inward = Linear(self.width, ("latent", "embed"), use_bias=True)
        self.time_in = Linear(self.width, ("frequency", "mlp"), use_bias=True)
        self.time_out = Linear(self.width, ("mlp", "embed"), use_bias=True)
        # Zeros to begin with: a new head disturbs nothing that is trained already.
        self.outward = Linear(
            self.config.features, ("embed", "latent"), use_bias=True, kernel_init=nn.initializers.zeros
        )

    def __call__(self, latents, times):
        """Goes in and out; used for initialisation."""
        return self.flow(self.embed(latents, times), latents, times)

    def embed(
        self, latents: Float[Array, "B G I features"], times: Float[Array, "B G"]
    ) -> Float[Array, "B G I D"]:
        """Tokens of noisy latents: projection, plus time, plus place."""
        time = self.time_out(nn.silu(self.time_in(time_features(times))))
        place = grid_positions(*self.config.grid, self.width)
        return self.inward(latents) + time[:, :, None] + place

    def flow(
        self,
        hidden: Float[Array, "B G I D"],
        latents: Float[Array, "B G I features"],
        times: Float[Array, "B G"],
    ) -> Float[Array, "B G I features"]:
        """The velocity that features stand for, float32; (x_t − x₀) / max(t, 0.05) where they stand for x₀ (JiT)."""
        out = self.outward(hidden.astype(jnp.float32))
        if self.config.prediction == "velocity":
            return out
        return (latents - out) / jnp.maximum(times, _MIN_TIME)[:, :, None, None]
