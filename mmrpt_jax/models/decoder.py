"""The transformer: one block, scanned over layers. Vision tower and language model are both this stack."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.cache import Cache
from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.layer_attention import KeysValues, LayerAttention, Projected
from mmrpt_jax.models.layers import MLP, Linear, make_norm
from mmrpt_jax.models.remat import recomputed
from mmrpt_jax.models.rotary import rotary_axes, rotary_frequencies, rotate
from mmrpt_jax.models.sharding import split_over_prompts
from mmrpt_jax.models.tokens import Context, GroupTokens, Tokens


class LayerOutput(NamedTuple):
    """What a layer leaves behind; what a stack leaves has a leading L axis.

    Attributes:
        keys: [B K G T H]; with a cache, all of it, as it is carried; None of a group.
        values: like `keys`.
        mass: [B G T N M] attention mass per region, or None.
        received: [B S N] attention mass per key, or None.
        tapped: [taps B G T D] features of the layers that a stack was asked for, not normed; None if it was not.
    """

    keys: Float[Array, "*L B K G T H"] | None
    values: Float[Array, "*L B K G T H"] | None
    mass: Float[Array, "*L B G T N M"] | None
    received: Float[Array, "*L B S N"] | None
    tapped: Float[Array, "taps B G T D"] | None = None


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with sandwich norms, what is added is normed too.

    Attributes:
        config: the layer.
        causal: no token sees one behind it in its row.
    """

    config: TransformerConfig
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B G T D"],
        context_kv: Sequence[KeysValues],
        contexts: Sequence[Context],
        tokens: Tokens | GroupTokens,
        cache: Cache | None = None,
        local: Bool[Array, ""] | bool = False,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs one layer.

        Args:
            x: token features; a prompt with its group is one row.
            context_kv: this layer's keys and values of what stands before the tokens; the prompt first. None before a
                group, which brings its prompt along.
            contexts: where those keys stand, one for each.
            tokens: where the tokens of `x` stand.
            cache: during sampling, this layer's keys and values of the branch so far (T = 1).
            local: whether this is one of the layers that see only what is near.
        """
        cfg = self.config
        own = self._project(self._norm("attention_norm")(x), tokens.positions, local)
        attention, left = LayerAttention(cfg, self.causal, local), (None, None)
        if isinstance(tokens, GroupTokens):
            seen = attention.in_group(own, tokens)
        elif cache is not None:
            seen, left = attention.with_cache(own, tokens, context_kv, contexts, cache)
        else:
            seen, left = attention.behind(own, tokens, context_kv, contexts)
        flat = seen.values.reshape(*x.shape[:-1], cfg.heads * cfg.head_dim)
        out = Linear(cfg.width, ("heads", "embed"), use_bias=cfg.out_bias, lora=cfg.lora, name="out")(flat)
        x = x + (self._norm("attention_out_norm")(out) if cfg.sandwich_norms else out)
        mlp = MLP(cfg.width, cfg.mlp, cfg.gated, cfg.activation, cfg.mlp_bias, cfg.lora, name="mlp")
        out = mlp(self._norm("mlp_norm")(x))
        x = x + (self._norm("mlp_out_norm")(out) if cfg.sandwich_norms else out)
        return x, LayerOutput(*left, seen.mass, seen.received)

    def _norm(self, name: str) -> nn.Module:
        return make_norm(self.config.norm, self.config.norm_eps, name)

    def _project(self, x, positions, local) -> Projected:
        cfg = self.config

        def heads_of(name, count, axis):
            options = {"use_bias": cfg.qkv_bias, "lora": cfg.lora}
            flat = Linear(count * cfg.head_dim, ("embed", axis), name=name, **options)(x)
            return flat.reshape(*x.shape[:-1], count, cfg.head_dim)

        queries = heads_of("query", cfg.heads, "heads")
        keys = heads_of("key", cfg.kv_heads, "kv_heads")
        values = heads_of("value", cfg.kv_heads, "kv_heads")
        if cfg.qk_norm:
            queries, keys = self._norm("query_norm")(queries), self._norm("key_norm")(keys)
        if cfg.rope is not None:
            pairs = cfg.head_dim // 2
            axes, frequencies = rotary_axes(cfg.rope, pairs), rotary_frequencies(cfg.rope, pairs)
            if cfg.local_rope is not None:
                frequencies = jnp.where(local, rotary_frequencies(cfg.local_rope, pairs), frequencies)
            queries, keys = (rotate(y, positions, frequencies, axes) for y in (queries, keys))
        return Projected(queries, keys, values)


class LayerInput(NamedTuple):
    """What differs from layer to layer of a stack, beside its parameters; every leaf has a leading L axis.

    Attributes:
        context_kv: keys and values of what stands before the tokens.
        index: the number of the layer.
        local: whether it sees only what is near.
    """

    context_kv: Sequence[KeysValues]
    index: Int[Array, " L"]
    local: Bool[Array, " L"]


class Stack(nn.Module):
    """`layers` blocks with stacked parameters, then a norm.

    Attributes:
        config: the layers.
        taps: layers whose features are asked for, beside those of the last one.
    """

    config: TransformerConfig
    taps: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B G T D"],
        context_kv: Sequence[KeysValues],
        contexts: Sequence[Context],
        tokens: Tokens | GroupTokens,
        added: Float[Array, "n B G t D"] | None = None,
        *,
        causal: bool = False,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs all layers.

        Args:
            x: token features.
            context_kv: keys and values of what stands before the tokens, of all layers.
            contexts: where those keys stand.
            tokens: where the tokens of `x` stand.
            added: what is added to the first t tokens behind the first n layers, if anything.
            causal: no token sees one behind it in its row; of a group, it is said of the prompt.
        """
        cfg = self.config
        local = jnp.array(cfg.local_layers or (False,) * cfg.layers)
        each = LayerInput(context_kv, jnp.arange(cfg.layers), local)

        def layer(block, carry, each, contexts, tokens, added):
            x, tapped = carry
            x, out = block(split_over_prompts(x), each.context_kv, contexts, tokens, None, each.local)
            if added is not None:
                here = added[jnp.minimum(each.index, len(added) - 1)].astype(x.dtype)
                here = jnp.where(each.index < len(added), here, 0)
                x = x.at[:, :, : here.shape[2]].add(here)
            if self.taps:
                mine = jnp.array(self.taps) == each.index
                tapped = jnp.where(mine[:, None, None, None, None], x, tapped)
            return (x, tapped), out

        scanned = nn.scan(
            recomputed(layer, cfg.remat, nn.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=cfg.layers,
            unroll=cfg.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        tapped = jnp.zeros((len(self.taps), *x.shape), x.dtype) if self.taps else None
        (x, tapped), outputs = scanned(
            Block(cfg, causal, name="layers"), (x, tapped), each, contexts, tokens, added
        )
        return make_norm(cfg.norm, cfg.norm_eps, "final_norm")(x), outputs._replace(tapped=tapped)
