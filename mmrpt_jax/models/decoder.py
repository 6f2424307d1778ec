"""The transformer: one block, scanned over layers. Vision tower and language model are both this stack."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.attention import KeyBlock, attend
from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.layers import GatedMLP, Linear, RMSNorm, rotate


class Tokens(NamedTuple):
    """Where tokens stand.

    Attributes:
        positions: [B G T] rotary positions.
        order: [B G T] for the visibility rule of `attend`.
        valid: [B G T], False for padding.
    """

    positions: Int[Array, "B G T"]
    order: Int[Array, "B G T"]
    valid: Bool[Array, "B G T"]


class Context(NamedTuple):
    """Where keys that were computed before stand; the same for all layers.

    A prompt's keys are shared by the group and have no G axis; a branch's earlier tokens are its own and have one.

    Attributes:
        order: [B S] or [B G S].
        valid: [B S] or [B G S].
        regions: [B S M] indicator columns whose attention mass is wanted, or None; one shared context at most.
        query_weights: [B G T] weights of the branch queries in the mass that each key receives; needed with
            regions.
    """

    order: Int[Array, "B *G S"]
    valid: Bool[Array, "B *G S"]
    regions: Float[Array, "B S M"] | None = None
    query_weights: Float[Array, "B G T"] | None = None


# Keys and values of a context: [B S K H] or [B G S K H] each, with a leading L axis for all layers.
KeysValues = tuple[Float[Array, "*E S K H"], Float[Array, "*E S K H"]]


class Cache(NamedTuple):
    """A branch's own keys and values while it grows token by token; slot `index` is written next.

    Attributes:
        keys: [B G R K H] of one layer.
        values: like `keys`.
        order: [B G R]; slots after the query are later in order, so they need no mask of their own.
    """

    keys: Float[Array, "B G R K H"]
    values: Float[Array, "B G R K H"]
    order: Int[Array, "B G R"]
    index: Int[Array, ""]


class LayerOutput(NamedTuple):
    """What a layer leaves behind: keys and values (all of a cache), mass per region, mass per key."""

    keys: Float[Array, "B G T K H"]
    values: Float[Array, "B G T K H"]
    mass: Float[Array, "B G T N M"] | None
    received: Float[Array, "B S N"] | None


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B G T D"],
        context_kv: Sequence[KeysValues],
        contexts: Sequence[Context],
        tokens: Tokens,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs one layer.

        Args:
            x: token features.
            context_kv: this layer's keys and values of what stands before the tokens; the prompt first.
            contexts: where those keys stand, one for each.
            tokens: where the tokens of `x` stand.
            cache: during sampling, this layer's keys and values of the branch so far (T = 1).
        """
        cfg = self.config
        normed = RMSNorm(cfg.norm_eps, name="attention_norm")(x)
        queries, keys, values = self._project(normed, tokens.positions)
        if cache is None:
            own = KeyBlock(keys, values, tokens.order, tokens.valid)
        else:
            keys = jax.lax.dynamic_update_slice_in_dim(cache.keys, keys, cache.index, axis=2)
            values = jax.lax.dynamic_update_slice_in_dim(cache.values, values, cache.index, axis=2)
            own = KeyBlock(keys, values, cache.order, jnp.ones_like(cache.order, bool))
        blocks = [
            KeyBlock(*kv, context.order, context.valid, context.regions)
            for kv, context in zip(context_kv, contexts, strict=True)
        ]
        blocks.append(own)
        weights = next((c.query_weights for c in contexts if c.query_weights is not None), None)
        seen = attend(queries, tokens.order, blocks, query_weights=weights, query_chunk=cfg.query_chunk)
        flat = seen.values.reshape(*x.shape[:-1], cfg.heads * cfg.head_dim)
        x = x + Linear(cfg.width, ("heads", "embed"), lora=cfg.lora, name="out")(flat)
        x = x + GatedMLP(cfg.width, cfg.mlp, cfg.lora, name="mlp")(RMSNorm(cfg.norm_eps, name="mlp_norm")(x))
        return x, LayerOutput(keys, values, seen.mass, seen.received)

    def _project(self, x, positions):
        cfg = self.config

        def heads_of(name, count, axis):
            options = {"use_bias": cfg.qkv_bias, "lora": cfg.lora}
            flat = Linear(count * cfg.head_dim, ("embed", axis), name=name, **options)(x)
            return flat.reshape(*x.shape[:-1], count, cfg.head_dim)

        queries = heads_of("query", cfg.heads, "heads")
        keys = heads_of("key", cfg.kv_heads, "kv_heads")
        values = heads_of("value", cfg.kv_heads, "kv_heads")
        if cfg.qk_norm:
            queries = RMSNorm(cfg.norm_eps, name="query_norm")(queries)
            keys = RMSNorm(cfg.norm_eps, name="key_norm")(keys)
        if cfg.rope_theta:
            queries = rotate(queries, positions, theta=cfg.rope_theta)
            keys = rotate(keys, positions, theta=cfg.rope_theta)
        return queries, keys, values


class Stack(nn.Module):
    """`layers` blocks with stacked parameters, then a norm."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B G T D"],
        context_kv: Sequence[KeysValues],
        contexts: Sequence[Context],
        tokens: Tokens,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs all layers; every array of the returned `LayerOutput` has a leading L axis."""
        layers = nn.scan(
            nn.remat(Block, prevent_cse=False) if self.config.remat else Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.config.layers,
            unroll=self.config.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, outputs = layers(self.config, name="layers")(x, context_kv, contexts, tokens)
        return RMSNorm(self.config.norm_eps, name="final_norm")(x), outputs
