"""The vision-language model: one prompt with images, computed once, and the branches that grow from it."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.decoder import Context, LayerOutput, Stack, Tokens
from mmrpt_jax.models.vision import VisionTower


class PromptTokens(NamedTuple):
    """Prompts, padded on the right.

    Attributes:
        ids: [B P] token ids; an image takes as many consecutive placeholder tokens as it has patches.
        valid: [B P], False for padding.
        image_slots: [B P], True where a visual token stands.
    """

    ids: Int[Array, "B P"]
    valid: Bool[Array, "B P"]
    image_slots: Bool[Array, "B P"]


class BranchTokens(NamedTuple):
    """The G continuations of each prompt, padded on the right.

    Attributes:
        ids: [B G R].
        valid: [B G R], True up to and including the end token.
    """

    ids: Int[Array, "B G R"]
    valid: Bool[Array, "B G R"]


class PromptState(NamedTuple):
    """A computed prompt: what branches need of it.

    Attributes:
        keys: [L B P K H].
        values: [L B P K H].
        valid: [B P].
        length: [B], rotary positions that the prompt takes; the branches' first one.
        last_hidden: [B D] features that predict the branches' first token.
    """

    keys: Float[Array, "L B P K H"]
    values: Float[Array, "L B P K H"]
    valid: Bool[Array, "B P"]
    length: Int[Array, "B"]
    last_hidden: Float[Array, "B D"]


class VLM(nn.Module):
    """Vision tower and decoder. `encode_prompt` once per prompt, `extend` once per group."""

    config: VLMConfig

    def setup(self):
        """Declares the embedding, which is also the output matrix, and the two stacks."""
        cfg = self.config
        normal = nn.initializers.normal(cfg.decoder.width**-0.5)
        partitioned = nn.with_logical_partitioning(normal, ("vocab", "embed"))
        self.embedding = self.param("embedding", partitioned, (cfg.vocab_size, cfg.decoder.width))
        self.vision = VisionTower(cfg.vision, cfg.decoder.width, cfg.compute_dtype)
        self.decoder = Stack(cfg.decoder)

    def __call__(self, images, prompt, branches):
        """Runs everything once; used for initialisation."""
        return self.extend(self.encode_prompt(images, prompt), branches)

    def embed(self, ids: Int[Array, "*E"]) -> Float[Array, "*E D"]:
        """Token embeddings, scaled to unit variance; what follows computes in their type."""
        scaled = self.embedding[ids] * self.config.decoder.width**0.5
        return scaled.astype(self.config.compute_dtype)

    def encode_prompt(self, images: UInt8[Array, "B C h w 3"] | None, prompt: PromptTokens) -> PromptState:
        """Encodes the images and runs the prompt; the group axis does not exist here.

        Args:
            images: C images per prompt, in the order of their placeholders; None for text only.
            prompt: token ids; a prompt has C times as many image slots as an image has visual tokens.
        """
        x = self.embed(prompt.ids)
        if images is not None:
            batch, count = images.shape[:2]
            features = self.vision(images.reshape(batch * count, *images.shape[2:]))
            x = place_images(x, features.reshape(batch, -1, x.shape[-1]), prompt.image_slots)
        tokens = prompt_places(self.config, prompt)
        hidden, out = self.decoder(x[:, None], (), (), tokens)
        # Padding is on the right, but image slots may be hidden: the last valid token tells the length.
        end = jnp.max(jnp.where(prompt.valid, jnp.arange(1, x.shape[1] + 1), 0), axis=1)
        last = jnp.take_along_axis(hidden[:, 0], (end - 1)[:, None, None], axis=1)[:, 0]
        length = jnp.max(jnp.where(prompt.valid, tokens.positions[:, 0] + 1, 0), axis=1)
        return PromptState(out.keys[:, :, 0], out.values[:, :, 0], prompt.valid, length, last)

    def extend(
        self,
        prompt: PromptState,
        branches: BranchTokens,
        regions: Float[Array, "B P M"] | None = None,
        query_weights: Float[Array, "B G R"] | None = None,
    ) -> tuple[Float[Array, "B G R D"], LayerOutput]:
        """Runs the branches behind their prompt.

        Returns:
            The features that *predict* each branch token (the prompt's last one first), and what each layer
            saw: with `regions`, the attention mass of each branch query over them and the mass that each
            prompt key received.
        """
        tokens = branch_positions(prompt.length, branches)
        context = prompt_context(prompt)._replace(regions=regions, query_weights=query_weights)
        x = self.embed(branches.ids)
        hidden, out = self.decoder(x, [(prompt.keys, prompt.values)], [context], tokens)
        first = jnp.broadcast_to(prompt.last_hidden[:, None, None], (*hidden.shape[:2], 1, hidden.shape[-1]))
        return jnp.concatenate([first, hidden[:, :, :-1]], axis=2), out


def prompt_places(config: VLMConfig, prompt: PromptTokens) -> Tokens:
    """Positions and order of prompt tokens, as `image_positions` and `image_attention` have them: [B 1 P]."""
    slots = prompt.image_slots
    index = jnp.broadcast_to(jnp.arange(slots.shape[1], dtype=jnp.int32), slots.shape)
    positions = order = index
    # Images may follow each other without a word between: each is as long as it has patches.
    opens = slots & ((jnp.cumsum(slots, axis=1) - 1) % config.vision.num_patches == 0)
    if config.image_positions == "shared":
        positions = jnp.cumsum(~slots | opens, axis=1, dtype=jnp.int32) - 1
    if config.image_attention == "bidirectional":
        order = jnp.where(slots, jax.lax.cummax(jnp.where(opens, index, 0), axis=1), index)
    return Tokens(positions[:, None], order[:, None], prompt.valid[:, None])


def prompt_context(prompt: PromptState) -> Context:
    """Where the prompt's keys stand: before everything that its branches say."""
    return Context(jnp.zeros(prompt.valid.shape, jnp.int32), prompt.valid)


def branch_positions(prompt_length: Int[Array, "B"], branches: BranchTokens) -> Tokens:
    """Branch tokens go on where the prompt ends."""
    batch, group, length = branches.ids.shape
    positions = prompt_length[:, None, None] + jnp.arange(length, dtype=jnp.int32)
    positions = jnp.broadcast_to(positions, (batch, group, length))
    return Tokens(positions, positions, branches.valid)


def place_images(
    x: Float[Array, "B P D"], features: Float[Array, "B I D"], slots: Bool[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Puts the i-th visual token of a prompt into its i-th image slot."""
    index = jnp.clip(jnp.cumsum(slots, axis=1) - 1, 0, features.shape[1] - 1)
    placed = jnp.take_along_axis(features, index[..., None], axis=1)
    return jnp.where(slots[..., None], placed.astype(x.dtype), x)
