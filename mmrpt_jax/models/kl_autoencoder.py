"""A convolutional KL autoencoder of images (Latent Diffusion, arXiv 2112.10752), in the shape of FLUX's.

A parameter's path, joined by dots, is its name in FLUX's `ae.safetensors`, but for the last part: a convolution's
`weight` [out in h w] is the `kernel` [h w in out] here, and a norm's `weight` is `scale`. So
`encoder.down.0.block.1.norm1.weight` is `params["encoder"]["down.0.block.1"]["norm1"]["scale"]`.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from mmrpt_jax.models.attention import attend
from mmrpt_jax.models.autoencoder import to_pixels
from mmrpt_jax.models.chunk_attention import KeyBlock, heads_first
from mmrpt_jax.models.unified_config import AutoencoderConfig

_CONV = nn.with_logical_partitioning(nn.initializers.lecun_normal(), (None, None, None, "channels"))
_BIAS = nn.with_logical_partitioning(nn.initializers.zeros, ("norm",))
_SCALE = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
_QUERY_CHUNK = 1024


def _conv(features: int, name: str, *, size: int = 3, stride: int = 1, padding: Any = "SAME") -> nn.Conv:
    window, strides = (size, size), (stride, stride)
    return nn.Conv(features, window, strides, padding, kernel_init=_CONV, bias_init=_BIAS, name=name)


def _norm(x: Float[Array, "B h w c"], name: str) -> Float[Array, "B h w c"]:
    # 32 groups, or as many as fit: small models have fewer channels.
    groups = math.gcd(32, x.shape[-1])
    norm = nn.GroupNorm(
        groups, epsilon=1e-6, use_fast_variance=False, scale_init=_SCALE, bias_init=_BIAS, name=name
    )
    return norm(x)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))); a 1x1 convolution on x where the channels change."""

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w channels"]:
        """Runs both convolutions."""
        h = _conv(self.channels, "conv1")(nn.swish(_norm(x, "norm1")))
        h = _conv(self.channels, "conv2")(nn.swish(_norm(h, "norm2")))
        if x.shape[-1] != self.channels:
            x = _conv(self.channels, "nin_shortcut", size=1)(x)
        return x + h


class PixelAttention(nn.Module):
    """x + attention(norm(x)) over all places of the image, one head as wide as there are channels."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
        """Every place looks at every place."""
        batch, height, width, channels = x.shape
        normed = _norm(x, "norm")

        def project(name):
            return _conv(channels, name, size=1)(normed).reshape(batch, 1, height * width, 1, channels)

        nowhere = jnp.zeros((batch, 1, height * width), jnp.int32)
        queries, keys, values = project("q"), project("k"), project("v")
        block = KeyBlock(heads_first(keys), heads_first(values), nowhere, nowhere == 0)
        seen = attend(queries, nowhere, [block], query_chunk=_QUERY_CHUNK).values
        return x + _conv(channels, "proj_out", size=1)(seen.reshape(x.shape))


def _middle(x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    x = ResidualBlock(x.shape[-1], name="mid.block_1")(x)
    x = PixelAttention(name="mid.attn_1")(x)
    return ResidualBlock(x.shape[-1], name="mid.block_2")(x)


class Encoder(nn.Module):
    """Pixels to mean and log-variance of z."""

    config: AutoencoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B h w 3"]) -> Float[Array, "B h/f w/f 2*C"]:
        """Goes down level by level."""
        cfg = self.config
        x = _conv(cfg.width, "conv_in")(x)
        for level, multiplier in enumerate(cfg.multipliers):
            for block in range(cfg.blocks):
                x = ResidualBlock(cfg.width * multiplier, name=f"down.{level}.block.{block}")(x)
            if level + 1 < len(cfg.multipliers):
                below = ((0, 1), (0, 1))
                x = _conv(x.shape[-1], f"down.{level}.downsample.conv", stride=2, padding=below)(x)
        x = nn.swish(_norm(_middle(x), "norm_out"))
        return _conv(2 * cfg.channels, "conv_out")(x)


class Decoder(nn.Module):
    """z to pixels."""

    config: AutoencoderConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B h/f w/f C"]) -> Float[Array, "B h w 3"]:
        """Goes up level by level; levels are counted as in the encoder."""
        cfg = self.config
        x = _middle(_conv(cfg.width * cfg.multipliers[-1], "conv_in")(z))
        for level, multiplier in reversed(list(enumerate(cfg.multipliers))):
            for block in range(cfg.blocks + 1):
                x = ResidualBlock(cfg.width * multiplier, name=f"up.{level}.block.{block}")(x)
            if level > 0:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = _conv(x.shape[-1], f"up.{level}.upsample.conv")(x)
        return _conv(3, "conv_out")(nn.swish(_norm(x, "norm_out")))


class AutoencoderNetwork(nn.Module):
    """Both halves."""

    config: AutoencoderConfig

    def setup(self):
        """Declares the halves."""
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(self, pixels):
        """There and back; used for initialisation."""
        return self.decode(self.encode(pixels).mean)

    def encode(self, pixels: Float[Array, "B h w 3"]) -> "Posterior":
        """The distribution of z given an image in [-1, 1]."""
        return Posterior(*jnp.split(self.encoder(pixels), 2, axis=-1))

    def decode(self, z: Float[Array, "B h/f w/f C"]) -> Float[Array, "B h w 3"]:
        """Pixels of z."""
        return self.decoder(z)


class Posterior(NamedTuple):
    """A Gaussian over z, independent in each number."""

    mean: Float[Array, "B h/f w/f C"]
    logvar: Float[Array, "B h/f w/f C"]

    def sample(self, key) -> Float[Array, "B h/f w/f C"]:
        """mean + standard deviation · ε; differentiable in both."""
        return self.mean + jnp.exp(0.5 * self.logvar) * jax.random.normal(key, self.mean.shape)

    def kl(self) -> Float[Array, " B"]:
        """KL to the standard Gaussian, summed over z, nats, ≥ 0: ½ Σ (mean² + var − 1 − log var)."""
        terms = self.mean**2 + jnp.exp(self.logvar) - 1.0 - self.logvar
        return 0.5 * jnp.sum(terms, axis=(1, 2, 3))


def reconstruction_loss(
    config: AutoencoderConfig, params, images: UInt8[Array, "B h w 3"], key, *, kl_weight: float = 1e-6
) -> tuple[Float[Array, ""], Float[Array, ""], dict]:
    """Absolute error of pixels in [-1, 1] at a sampled z, plus `kl_weight` nats of KL.

    Returns:
        (sum, count, metrics): sums over pixel values and their number; metrics are (sum, count) pairs,
        `absolute_error` per pixel value and `kl` per image.
    """
    network, variables, pixels = AutoencoderNetwork(config), {"params": params}, to_pixels(images)
    posterior = network.apply(variables, pixels, method=AutoencoderNetwork.encode)
    decoded = network.apply(variables, posterior.sample(key), method=AutoencoderNetwork.decode)
    error, kl = jnp.sum(jnp.abs(decoded - pixels)), jnp.sum(posterior.kl())
    count, batch = jnp.float32(pixels.size), jnp.float32(pixels.shape[0])
    return error + kl_weight * kl, count, {"absolute_error": (error, count), "kl": (kl, batch)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KLAutoencoder:
    """An `Autoencoder` out of a config and trained parameters; latents are scaled means, nothing is sampled."""

    config: AutoencoderConfig = dataclasses.field(metadata={"static": True})
    params: Any

    @property
    def channels(self) -> int:
        """C, numbers per latent."""
        return self.config.channels

    @property
    def downsample(self) -> int:
        """f, pixels per latent, each way."""
        return self.config.downsample

    def encode(self, images: UInt8[Array, "*E h w 3"]) -> Float[Array, "*E h/f w/f C"]:
        """(mean of z − shift) · scale."""
        z = self._run(AutoencoderNetwork.encode, to_pixels(images)).mean
        return ((z - self.config.shift) * self.config.scale).reshape(*images.shape[:-3], *z.shape[1:])

    def decode(self, latents: Float[Array, "*E h/f w/f C"]) -> Float[Array, "*E h w 3"]:
        """Pixels, in [-1, 1] up to overshoot."""
        pixels = self._run(AutoencoderNetwork.decode, latents / self.config.scale + self.config.shift)
        return pixels.reshape(*latents.shape[:-3], *pixels.shape[1:])

    def _run(self, method, maps):
        flat = maps.reshape(-1, *maps.shape[-3:])
        return AutoencoderNetwork(self.config).apply({"params": self.params}, flat, method=method)
