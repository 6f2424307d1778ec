"""The vision tower: patches in, visual tokens of the decoder's width out."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from mmrpt_jax.models.config import VisionConfig
from mmrpt_jax.models.decoder import Stack, Tokens
from mmrpt_jax.models.layers import Linear


def patchify(images: Float[Array, "B h w C"], patch_size: int) -> Float[Array, "B I pixels"]:
    """Cuts images into square patches, row by row; pixels within a patch are row, column, channel."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, rows, patch_size, columns, patch_size, channels).swapaxes(2, 3)
    return patches.reshape(batch, rows * columns, patch_size * patch_size * channels)


class VisionTower(nn.Module):
    """ViT (Dosovitskiy et al., 2021) with learned positions and a two-layer connector."""

    config: VisionConfig
    output_width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: UInt8[Array, "B h w 3"]) -> Float[Array, "B I D"]:
        """Encodes images as visual tokens of the decoder's width."""
        cfg = self.config
        width = cfg.transformer.width
        # Bytes travel to the device; they become numbers in [-1, 1] there.
        pixels = images.astype(jnp.float32) / 127.5 - 1.0
        patches = patchify(pixels, cfg.patch_size).astype(self.dtype)
        x = Linear(width, ("patch", "embed"), use_bias=True, name="patch_embedding")(patches)
        positions = self.param(
            "positions",
            nn.with_logical_partitioning(nn.initializers.normal(0.02), ("image", "embed")),
            (cfg.num_patches, width),
        )
        x = (x + positions.astype(x.dtype))[:, None]
        # All patches share one order: attention inside an image is bidirectional.
        nowhere = jnp.zeros(x.shape[:3], jnp.int32)
        tokens = Tokens(nowhere, nowhere, nowhere == 0)
        x, _ = Stack(cfg.transformer, name="stack")(x, (), (), tokens)
        x = nn.gelu(Linear(self.output_width, ("embed", "mlp"), use_bias=True, name="connector_in")(x[:, 0]))
        return Linear(self.output_width, ("mlp", "embed"), use_bias=True, name="connector_out")(x)
