"""Between pixels and the latents that are drawn: what an autoencoder of images must do, and one without weights."""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from mmrpt_jax.models.latents import pack_latents, unpack_latents
from mmrpt_jax.models.unified_config import LatentConfig


class Autoencoder(Protocol):
    """Images to latents and back. Every autoencoder is a pytree, so compiled functions take it as an argument."""

    @property
    def channels(self) -> int:
        """C, numbers per latent."""

    @property
    def downsample(self) -> int:
        """f, pixels per latent, each way."""

    def encode(self, images: UInt8[Array, "*E h w 3"]) -> Float[Array, "*E h/f w/f C"]:
        """Latents of about zero mean and unit variance; h and w are multiples of f."""

    def decode(self, latents: Float[Array, "*E h/f w/f C"]) -> Float[Array, "*E h w 3"]:
        """Pixels, in [-1, 1] up to what the decoder overshoots; see `to_uint8`."""


def to_pixels(images: UInt8[Array, "*E h w 3"]) -> Float[Array, "*E h w 3"]:
    """Bytes as numbers in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(pixels: Float[Array, "*E h w 3"]) -> UInt8[Array, "*E h w 3"]:
    """Numbers in [-1, 1] as the nearest bytes; what lies outside is clipped."""
    return jnp.clip(jnp.round((pixels + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def encode_tokens(
    coder: Autoencoder, images: UInt8[Array, "*E h w 3"], config: LatentConfig
) -> Float[Array, "*E I features"]:
    """Images as the packed latents that a unified model learns to draw.

    Raises:
        ValueError: the autoencoder is not the one that `config` describes.
    """
    _check_fit(coder, config)
    return pack_latents(coder.encode(images), config.pack)


def decode_tokens(
    coder: Autoencoder, tokens: Float[Array, "*E I features"], config: LatentConfig
) -> UInt8[Array, "*E h w 3"]:
    """Packed latents as images.

    Raises:
        ValueError: the autoencoder is not the one that `config` describes.
    """
    _check_fit(coder, config)
    return to_uint8(coder.decode(unpack_latents(tokens, config.grid, config.pack)))


def _check_fit(coder: Autoencoder, config: LatentConfig) -> None:
    found, wanted = (coder.channels, coder.downsample), (config.channels, config.downsample)
    if found != wanted:
        raise ValueError(
            f"the autoencoder has {found[0]} channels at 1/{found[1]} of the image, the model draws {wanted[0]} at "
            f"1/{wanted[1]}: change one of them"
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PatchAutoencoder:
    """Square patches of pixels as latents: nothing to learn and nothing lost, `to_uint8` gives every byte back.

    Attributes:
        size: f, side of a patch in pixels.
        shift: latents are (pixels − shift) · scale; mean of the pixels of a data set, in [-1, 1].
        scale: 1 / their standard deviation.
    """

    size: int
    shift: float = 0.0
    scale: float = 1.0

    @property
    def channels(self) -> int:
        """C, numbers per latent."""
        return 3 * self.size**2

    @property
    def downsample(self) -> int:
        """f, pixels per latent, each way."""
        return self.size

    def encode(self, images: UInt8[Array, "*E h w 3"]) -> Float[Array, "*E h/f w/f C"]:
        """Cuts images into patches; in a latent row, column, colour."""
        *leading, height, width, _ = images.shape
        patches = pack_latents((to_pixels(images) - self.shift) * self.scale, self.size)
        return patches.reshape(*leading, height // self.size, width // self.size, self.channels)

    def decode(self, latents: Float[Array, "*E h/f w/f C"]) -> Float[Array, "*E h w 3"]:
        """Puts the patches together."""
        *leading, rows, columns, channels = latents.shape
        patches = latents.reshape(*leading, rows * columns, channels)
        return unpack_latents(patches, (rows, columns), self.size) / self.scale + self.shift
