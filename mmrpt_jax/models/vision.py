"""The vision tower: patches in, visual tokens of the decoder's width out."""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from mmrpt_jax.models.config import ConnectorConfig, VisionConfig
from mmrpt_jax.models.decoder import Stack
from mmrpt_jax.models.latents import fixed_positions
from mmrpt_jax.models.layers import Linear, activation, make_norm
from mmrpt_jax.models.patches import (
    ImagePatches,
    cut_images,
    learned_positions,
    normalise,
    vision_places,
)
from mmrpt_jax.models.tokens import Tokens


class VisualTokens(NamedTuple):
    """What a decoder sees of the images of a prompt.

    Attributes:
        features: [B I D], in the order of the patches.
        rows: [B I] row of the token in its image, in tokens.
        columns: [B I] likewise.
        image: [B I] number of its image in the prompt; -1 for padding.
        deepstack: [n B I D], what is added behind the decoder's first n layers, or None.
    """

    features: Float[Array, "B I D"]
    rows: Int[Array, "B I"]
    columns: Int[Array, "B I"]
    image: Int[Array, "B I"]
    deepstack: Float[Array, "n B I D"] | None = None


class Connector(nn.Module):
    """Squares of patches become visual tokens: pooled, normed if need be, and mapped to the decoder's width."""

    config: ConnectorConfig
    output_width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B N V"]) -> Float[Array, "B I D"]:
        """Maps patches in block order."""
        cfg = self.config
        blocks = x.reshape(x.shape[0], -1, cfg.merge**2, x.shape[-1])
        x = blocks.mean(axis=2) if cfg.pool == "mean" else blocks.reshape(*blocks.shape[:2], -1)
        if cfg.norm is not None:
            x = make_norm(cfg.norm, cfg.norm_eps, "connector_norm")(x)
        if cfg.hidden != 0:
            hidden = self.output_width if cfg.hidden is None else cfg.hidden
            x = Linear(hidden, ("embed", "mlp"), use_bias=cfg.bias, name="connector_in")(x)
            x = activation(cfg.activation)(x)
        return Linear(self.output_width, ("mlp", "embed"), use_bias=cfg.bias, name="connector_out")(x)


def count_tokens(config: VisionConfig, images: UInt8[Array, "B C h w 3"] | ImagePatches) -> int:
    """I, visual tokens of a prompt's images, padding included."""
    if isinstance(images, ImagePatches):
        return images.image.shape[1] // config.connector.merge**2
    return images.shape[1] * config.num_tokens


class VisionTower(nn.Module):
    """ViT (Dosovitskiy et al., 2021) and connector."""

    config: VisionConfig
    output_width: int
    dtype: str = "float32"

    def setup(self):
        """Declares the tower; the connector's parameters stand beside its own."""
        cfg, width = self.config, self.config.transformer.width
        self.patch_embedding = Linear(width, ("patch", "embed"), use_bias=cfg.patch_bias)
        if cfg.positions != "none":
            normal = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("image", "embed"))
            self.positions = self.param("positions", normal, (cfg.num_patches, width))
        self.stack = Stack(cfg.transformer, cfg.deepstack_layers)
        self.connector = Connector(cfg.connector, self.output_width)
        nn.share_scope(self, self.connector)
        if cfg.deepstack_layers:
            # What inner layers say has met no norm yet.
            tower = cfg.transformer
            inner = dataclasses.replace(cfg.connector, norm=tower.norm, norm_eps=tower.norm_eps)
            self.deepstack = nn.vmap(
                Connector,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(inner, self.output_width)

    def __call__(self, images: UInt8[Array, "B C h w 3"] | ImagePatches) -> VisualTokens:
        """Encodes the images of each prompt as visual tokens of the decoder's width.

        Args:
            images: C images of one size per prompt, or patches of images of any sizes.
        """
        if isinstance(images, ImagePatches):
            return self.encode(images)
        batch, count = images.shape[:2]
        cfg = self.config
        # An image to a row: no attention is computed between images only to be hidden.
        flat = images.reshape(batch * count, *images.shape[2:])
        tokens = self.encode(cut_images(flat, cfg.patch_size, cfg.connector.merge))
        numbers = jnp.repeat(jnp.arange(count, dtype=jnp.int32), tokens.image.shape[1])
        together = lambda x: x.reshape(batch, -1, *x.shape[2:])  # noqa: E731
        deepstack = tokens.deepstack
        if deepstack is not None:
            deepstack = deepstack.reshape(len(deepstack), batch, -1, deepstack.shape[-1])
        return VisualTokens(
            together(tokens.features),
            together(tokens.rows),
            together(tokens.columns),
            jnp.broadcast_to(numbers, (batch, len(numbers))),
            deepstack,
        )

    def encode(self, patches: ImagePatches) -> VisualTokens:
        """Runs the tower on patches."""
        cfg, merge = self.config, self.config.connector.merge
        # Towers of videos see a still image several times.
        pixels = jnp.tile(normalise(patches.pixels, cfg.pixel_mean, cfg.pixel_std), cfg.frames)
        x = self.patch_embedding(pixels.astype(self.dtype))
        if cfg.positions != "none":
            x = x + learned_positions(self.positions, cfg.grid, patches, cfg.positions).astype(x.dtype)
        # All patches share one order: attention inside an image is bidirectional.
        image = patches.image[:, None]
        tokens = Tokens(
            positions=jnp.stack([patches.rows, patches.columns], axis=-1)[:, None],
            order=jnp.zeros_like(image),
            valid=image >= 0,
            places=vision_places(patches, cfg.window)[:, None],
        )
        x, out = self.stack(x[:, None], (), (), tokens)
        features = self.connector(x[:, 0])
        corner = slice(None, None, merge**2)
        rows, columns = patches.rows[:, corner] // merge, patches.columns[:, corner] // merge
        if cfg.token_positions:
            features = features + fixed_positions(rows, columns, self.output_width).astype(features.dtype)
        deepstack = self.deepstack(out.tapped[:, :, 0]) if cfg.deepstack_layers else None
        return VisualTokens(features, rows, columns, patches.image[:, corner], deepstack)
