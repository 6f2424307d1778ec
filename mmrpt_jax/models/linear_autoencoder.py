"""The best linear autoencoder of image patches: their principal components.

A patch of pixels has many more numbers than a picture of few colours has things to say, and a flow would spend itself
on the noise in all of them. Twelve times fewer numbers draw the embedded world without a mistake.
"""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from safetensors.numpy import load_file

from mmrpt_jax.models.autoencoder import PatchAutoencoder
from mmrpt_jax.models.safetensors_file import write_file


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearAutoencoder:
    """Latents are coefficients of the first C principal components of f x f patches, in units of `scale`.

    Attributes:
        mean: the mean patch, pixels in [-1, 1]; row, column, colour.
        basis: components, orthonormal columns, those of the largest variance first.
        scale: root of the mean variance of the coefficients, so that latents have unit variance on the whole. Each
            keeps its own: the first ones are larger, and stand out of the noise before the others.
    """

    mean: Float[Array, " 3*f*f"]
    basis: Float[Array, "3*f*f C"]
    scale: Float[Array, ""]

    @property
    def channels(self) -> int:
        """C, numbers per latent."""
        return self.basis.shape[1]

    @property
    def downsample(self) -> int:
        """f, pixels per latent, each way."""
        return round((self.basis.shape[0] / 3) ** 0.5)

    def encode(self, images: UInt8[Array, "*E h w 3"]) -> Float[Array, "*E h/f w/f C"]:
        """Coefficients of every patch."""
        patches = PatchAutoencoder(self.downsample).encode(images)
        return (patches - self.mean) @ self.basis / self.scale

    def decode(self, latents: Float[Array, "*E h/f w/f C"]) -> Float[Array, "*E h w 3"]:
        """The patches nearest to what was encoded."""
        patches = latents * self.scale @ jnp.transpose(self.basis) + self.mean
        return PatchAutoencoder(self.downsample).decode(patches)


def fit_linear_autoencoder(
    images: UInt8[np.ndarray, "N h w 3"], *, downsample: int, channels: int
) -> LinearAutoencoder:
    """Principal components of all patches of `images`.

    Args:
        images: h and w are multiples of `downsample`; thousands of patches, so that the components mean something.
        downsample: f, side of a patch in pixels.
        channels: C, at most 3 f².

    Raises:
        ValueError: a patch has fewer numbers than `channels`.
    """
    coder = PatchAutoencoder(downsample)
    if channels > coder.channels:
        raise ValueError(
            f"{channels} channels are more than the {coder.channels} numbers of a patch of {downsample} x {downsample}"
        )
    patches = np.asarray(coder.encode(images), np.float64).reshape(-1, coder.channels)
    mean = patches.mean(axis=0)
    variances, components = np.linalg.eigh(np.cov((patches - mean).T))
    # Ascending, as they come.
    variances, components = variances[::-1][:channels], components[:, ::-1][:, :channels]
    scale = np.sqrt(variances.mean())
    return LinearAutoencoder(*(np.asarray(part, np.float32) for part in (mean, components, scale)))


def save_linear_autoencoder(path: str | os.PathLike[str], coder: LinearAutoencoder) -> None:
    """Writes a safetensors file: components of nearly equal variance differ between machines, so keep them."""
    arrays = {"mean": coder.mean, "basis": coder.basis, "scale": coder.scale}
    write_file(Path(path), arrays)


def load_linear_autoencoder(path: str | os.PathLike[str]) -> LinearAutoencoder:
    """Reads what `save_linear_autoencoder` wrote."""
    return LinearAutoencoder(**load_file(path))
