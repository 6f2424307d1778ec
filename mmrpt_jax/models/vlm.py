"""The vision-language model: one prompt with images, computed once, and the branches that grow from it."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.decoder import LayerOutput, Stack
from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.places import (
    BranchTokens,
    PackedBranches,
    Packing,
    PromptTokens,
    branch_places,
    packed_places,
    place_images,
    prompt_end,
    prompt_places,
)
from mmrpt_jax.models.tokens import Context, GroupTokens, Tokens, join_row
from mmrpt_jax.models.vision import VisionTower


class PromptState(NamedTuple):
    """A computed prompt: what branches need of it.

    Attributes:
        keys: [L B K P H].
        values: [L B K P H].
        valid: [B P].
        length: [B], rotary positions that the prompt takes; the branches' first one.
        last_hidden: [B D] features that predict the branches' first token.
    """

    keys: Float[Array, "L B K P H"]
    values: Float[Array, "L B K P H"]
    valid: Bool[Array, "B P"]
    length: Int[Array, " B"]
    last_hidden: Float[Array, "B D"]


class VLM(nn.Module):
    """Vision tower and decoder. A prompt is run once for its whole group.

    Together with its branches where those are known (`run_group`); alone where they are yet to grow (`encode_prompt`,
    then `extend` or the steps of a rollout).
    """

    config: VLMConfig

    def setup(self):
        """Declares the embedding, the output matrix if that is another one, and the two stacks."""
        cfg = self.config
        normal = nn.initializers.normal(cfg.decoder.width**-0.5)
        partitioned = nn.with_logical_partitioning(normal, ("vocab", "embed"))
        self.embedding = self.param("embedding", partitioned, (cfg.vocab_size, cfg.decoder.width))
        if not cfg.tied:
            self.lm_head = self.param("lm_head", partitioned, (cfg.vocab_size, cfg.decoder.width))
        self.vision = VisionTower(cfg.vision, cfg.decoder.width, cfg.compute_dtype)
        self.decoder = Stack(cfg.decoder)

    def __call__(self, images, prompt, branches):
        """Runs everything once; used for initialisation."""
        return self.run_group(images, prompt, branches)

    def embed(self, ids: Int[Array, "*E"]) -> Float[Array, "*E D"]:
        """Token embeddings; scaled, fresh ones have unit variance. What follows computes in their type."""
        cfg = self.config
        scale = cfg.decoder.width**0.5 if cfg.scale_embeddings else 1.0
        return (self.embedding[ids] * scale).astype(cfg.compute_dtype)

    def encode_prompt(
        self, images: UInt8[Array, "B C h w 3"] | ImagePatches | None, prompt: PromptTokens
    ) -> PromptState:
        """Encodes the images and runs the prompt; the group axis does not exist here.

        Args:
            images: C images of one size per prompt, or patches of images of any sizes, in the order of their
                placeholders; None for text only.
            prompt: token ids; a prompt has as many image slots as its images have visual tokens.
        """
        x, tokens, added = self._place_prompt(images, prompt)
        hidden, out = self.decoder(x, (), (), tokens, added, causal=self._is_causal(images))
        last = _at_the_end(hidden, prompt)
        keys, values = out.keys[:, :, :, 0], out.values[:, :, :, 0]
        return PromptState(keys, values, prompt.valid, _length(tokens), last)

    def extend(
        self, prompt: PromptState, branches: BranchTokens
    ) -> tuple[Float[Array, "B G R D"], LayerOutput]:
        """Runs the branches behind a prompt that is computed.

        Returns:
            The features that *predict* each branch token (the prompt's last one first), and what each layer left.
        """
        tokens = branch_places(self.config, prompt.length, prompt.valid, branches.valid)
        context, context_kv = prompt_context(prompt.valid), (prompt.keys, prompt.values)
        hidden, out = self.decoder(self.embed(branches.ids), [context_kv], [context], tokens, causal=True)
        return _predicting(prompt.last_hidden, hidden), out

    def run_group(
        self,
        images: UInt8[Array, "B C h w 3"] | ImagePatches | None,
        prompt: PromptTokens,
        branches: BranchTokens | PackedBranches,
        regions: Float[Array, "B P M"] | None = None,
        query_weights: Float[Array, "B G R"] | None = None,
    ) -> tuple[Float[Array, "B G R D"], LayerOutput]:
        """Runs prompts and their branches in one pass, where both are known: in training and in scoring.

        The same features as those of `extend` behind `encode_prompt`, but each weight meets all tokens in one product.

        Returns:
            The features that *predict* each branch token (the prompt's last one first), and what each layer
            saw: with `regions`, the attention mass of each branch query over them and the mass that each
            prompt key received.
        """
        x, tokens, added = self._place_prompt(images, prompt)
        context = prompt_context(prompt.valid)._replace(regions=regions, query_weights=query_weights)
        packing = branches.packing if isinstance(branches, PackedBranches) else None
        if packing is None:
            behind = branch_places(self.config, _length(tokens), prompt.valid, branches.valid)
        else:
            behind = packed_places(self.config, _length(tokens), packing)
            # The prompt is near to all of them.
            context = context._replace(places=None)
        group = GroupTokens(tokens, behind, context)
        row = join_row(x, self.embed(branches.ids))
        hidden, out = self.decoder(row, (), (), group, added, causal=self._is_causal(images))
        of_prompt, of_branches = group.split(hidden)
        return _predicting(_at_the_end(of_prompt, prompt), of_branches, packing), out

    def _place_prompt(
        self, images, prompt: PromptTokens
    ) -> tuple[Float[Array, "B 1 P D"], Tokens, Float[Array, "n B 1 P D"] | None]:
        """Words and visual tokens, where they stand, and what is added to them behind the first layers."""
        x, slots = self.embed(prompt.ids), prompt.image_slots
        seen = added = None
        if images is not None:
            seen = self.vision(images)
            x = place_images(x, seen.features, slots)
        if seen is not None and seen.deepstack is not None:
            nothing = jnp.zeros_like(x)
            added = jnp.stack([place_images(nothing, deep, slots) for deep in seen.deepstack])[:, :, None]
        return x[:, None], prompt_places(self.config, prompt, seen), added

    def _is_causal(self, images) -> bool:
        return images is None or self.config.image_attention == "causal"


def prompt_context(valid: Bool[Array, "B P"]) -> Context:
    """Where a prompt's keys stand: before everything that its branches say."""
    nowhere = jnp.zeros(valid.shape, jnp.int32)
    return Context(nowhere, valid, places=nowhere + jnp.arange(valid.shape[1]))


def _length(prompt: Tokens) -> Int[Array, " B"]:
    """Rotary positions that prompts take: up to the furthest on any axis, of those that count."""
    furthest = prompt.positions.reshape(*prompt.valid.shape, -1).max(axis=-1)
    return jnp.max(jnp.where(prompt.valid, furthest + 1, 0), axis=(1, 2))


def _at_the_end(hidden: Float[Array, "B 1 P D"], prompt: PromptTokens) -> Float[Array, "B D"]:
    """Features of a prompt's last token."""
    end = prompt_end(prompt.valid)
    return jnp.take_along_axis(hidden[:, 0], (end - 1)[:, None, None], axis=1)[:, 0]


def _predicting(
    first: Float[Array, "B D"], hidden: Float[Array, "B G R D"], packing: Packing | None = None
) -> Float[Array, "B G R D"]:
    """Each token is predicted by the one before it; the first of a branch, by the prompt's last one."""
    first = jnp.broadcast_to(first[:, None, None], (*hidden.shape[:2], 1, hidden.shape[-1]))
    before = jnp.concatenate([first, hidden[:, :, :-1]], axis=2)
    if packing is None:
        return before
    return jnp.where((packing.step == 0)[:, None, :, None], first, before)
