"""Two towers whose embeddings can be compared, one of images and one of texts (SigLIP, arXiv 2303.15343)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.attention import attend
from mmrpt_jax.models.chunk_attention import KeyBlock, heads_first
from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.decoder import Stack
from mmrpt_jax.models.layers import MLP, Linear, make_norm
from mmrpt_jax.models.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class DualEncoderConfig:
    """Sizes of both towers; embeddings have the width of the tower of images.

    Attributes:
        image: transformer over patches.
        image_size: pixels each way.
        patch_size: pixels per patch, each way; what fills no patch is not looked at.
        text: transformer over tokens, every one of which sees all.
        text_length: T; shorter texts are padded, and padding is seen like words.
        vocab_size: V.
    """

    image: TransformerConfig
    image_size: int
    patch_size: int
    text: TransformerConfig
    text_length: int
    vocab_size: int

    @property
    def num_patches(self) -> int:
        """N, patches of an image."""
        return (self.image_size // self.patch_size) ** 2


class AttentionPool(nn.Module):
    """What one learned query sees in all patches, and an MLP on that (Lee et al., 2019)."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        """Pools the patches of each image."""
        cfg, batch = self.config, x.shape[0]

        def heads_of(name, x):
            flat = Linear(cfg.heads * cfg.head_dim, ("embed", "heads"), use_bias=True, name=name)(x)
            return flat.reshape(*x.shape[:-1], cfg.heads, cfg.head_dim)

        normal = nn.with_logical_partitioning(nn.initializers.normal(cfg.width**-0.5), ("embed",))
        probe = self.param("probe", normal, (cfg.width,))
        query = jnp.broadcast_to(heads_of("query", probe), (batch, 1, 1, cfg.heads, cfg.head_dim))
        nowhere = jnp.zeros(x.shape[:2], jnp.int32)
        keys, values = (heads_first(heads_of(name, x)) for name in ("key", "value"))
        block = KeyBlock(keys, values, nowhere, nowhere == 0)
        seen = attend(query, nowhere[:, None, :1], [block]).values.reshape(batch, -1)
        out = Linear(cfg.width, ("heads", "embed"), use_bias=True, name="out")(seen)
        mlp = MLP(cfg.width, cfg.mlp, cfg.gated, cfg.activation, cfg.mlp_bias, name="mlp")
        return out + mlp(make_norm(cfg.norm, cfg.norm_eps, "mlp_norm")(out))


class DualEncoder(nn.Module):
    """`encode_images` and `encode_texts`; rows are not of length 1."""

    config: DualEncoderConfig

    def setup(self):
        """Declares both towers and what makes one vector of each."""
        cfg = self.config
        normal = nn.initializers.normal(0.02)
        at_patch, at_token, of_token = (
            nn.with_logical_partitioning(normal, (axis, "embed")) for axis in ("image", None, "vocab")
        )
        self.patch_embedding = Linear(cfg.image.width, ("patch", "embed"), use_bias=True)
        self.patch_positions = self.param("patch_positions", at_patch, (cfg.num_patches, cfg.image.width))
        self.image = Stack(cfg.image)
        self.pool = AttentionPool(cfg.image)
        self.token_embedding = self.param("token_embedding", of_token, (cfg.vocab_size, cfg.text.width))
        self.token_positions = self.param("token_positions", at_token, (cfg.text_length, cfg.text.width))
        self.text = Stack(cfg.text)
        self.head = Linear(cfg.image.width, ("mlp", "embed"), use_bias=True)

    def __call__(self, patches, ids):
        """Runs everything once; used for initialisation."""
        return self.encode_images(patches), self.encode_texts(ids)

    def encode_images(self, patches: Float[Array, "B N pixels"]) -> Float[Array, "B D"]:
        """Embeds images, cut into patches and normalised."""
        return self.pool(self._seen(patches))

    def encode_texts(self, ids: Int[Array, "B T"]) -> Float[Array, "B D"]:
        """Embeds texts; the last token speaks for its text, be it padding."""
        return self.encode_tokens(ids)[:, -1]

    def encode_patches(self, patches: Float[Array, "B N pixels"]) -> Float[Array, "B N D"]:
        """What an image's embedding would be if all of it were like one patch, for each patch.

        The pool is asked about one patch alone, so that patches lie in the space of the texts (as MaskCLIP has it,
        arXiv 2112.01071, for CLIP).
        """
        seen = self._seen(patches)
        return self.pool(seen.reshape(-1, 1, seen.shape[-1])).reshape(seen.shape)

    def encode_tokens(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeds every token of texts, padding included, as the last one is embedded for its text."""
        return self.head(_see_all(self.text, self.token_embedding[ids] + self.token_positions))

    def _seen(self, patches: Float[Array, "B N pixels"]) -> Float[Array, "B N D"]:
        return _see_all(self.image, self.patch_embedding(patches) + self.patch_positions)


def _see_all(stack: Stack, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    nowhere = jnp.zeros((x.shape[0], 1, x.shape[1]), jnp.int32)
    return stack(x[:, None], (), (), Tokens(nowhere, nowhere, nowhere == 0))[0][:, 0]
