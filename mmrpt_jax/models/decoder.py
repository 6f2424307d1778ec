"""The transformer: one block, scanned over layers. Vision tower and language model are both this stack."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.attention import FAR, attend
from mmrpt_jax.models.cache import Cache, grow
from mmrpt_jax.models.chunk_attention import Attended, KeyBlock, heads_first
from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.fused_attention import Sequences, attend_to_selves
from mmrpt_jax.models.layers import MLP, Linear, make_norm
from mmrpt_jax.models.remat import recomputed
from mmrpt_jax.models.rotary import rotary_axes, rotary_frequencies, rotate
from mmrpt_jax.models.sharding import split_over_prompts


class Tokens(NamedTuple):
    """Where tokens stand.

    Attributes:
        positions: [B G T] rotary positions, or [B G T A] where axes differ.
        order: [B G T] for the visibility rule of `attend`.
        valid: [B G T], False for padding.
        places: [B G T], likewise; needed by local layers, and where rows hold several images.
    """

    positions: Int[Array, "B G T *A"]
    order: Int[Array, "B G T"]
    valid: Bool[Array, "B G T"]
    places: Int[Array, "B G T"] | None = None


class Context(NamedTuple):
    """Where keys that were computed before stand; the same for all layers.

    A prompt's keys are shared by the group and have no G axis; a branch's earlier tokens are its own and have one.

    Attributes:
        order: [B S] or [B G S].
        valid: [B S] or [B G S].
        regions: [B S M] indicator columns whose attention mass is wanted, or None; one shared context at most.
        query_weights: [B G T] weights of the branch queries in the mass that each key receives; needed with
            regions.
        places: [B S] or [B G S]; needed where tokens have places.
    """

    order: Int[Array, "B *G S"]
    valid: Bool[Array, "B *G S"]
    regions: Float[Array, "B S M"] | None = None
    query_weights: Float[Array, "B G T"] | None = None
    places: Int[Array, "B *G S"] | None = None


# Keys and values of a context, as in a `KeyBlock`; with a leading L axis for all layers.
KeysValues = tuple[Float[Array, "*E S H"], Float[Array, "*E S H"]]


class LayerOutput(NamedTuple):
    """What a layer leaves behind; what a stack leaves has a leading L axis.

    Attributes:
        keys: [B K G T H]; with a cache, all of it, as it is carried.
        values: like `keys`.
        mass: [B G T N M] attention mass per region, or None.
        received: [B S N] attention mass per key, or None.
        tapped: [taps B G T D] features of the layers that a stack was asked for, not normed; None if it was not.
    """

    keys: Float[Array, "*L B K G T H"]
    values: Float[Array, "*L B K G T H"]
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
        tokens: Tokens,
        cache: Cache | None = None,
        local: Bool[Array, ""] | bool = False,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs one layer.

        Args:
            x: token features.
            context_kv: this layer's keys and values of what stands before the tokens; the prompt first.
            contexts: where those keys stand, one for each.
            tokens: where the tokens of `x` stand.
            cache: during sampling, this layer's keys and values of the branch so far (T = 1).
            local: whether this is one of the layers that see only what is near.
        """
        cfg = self.config
        queries, keys, values = self._project(self._norm("attention_norm")(x), tokens.positions, local)
        keys, values = heads_first(keys), heads_first(values)
        if cache is None and self.causal and cfg.attention != "xla" and not contexts:
            seen = self._attend_to_selves(queries, keys, values, tokens)
        else:
            seen, keys, values = self._attend(
                queries, keys, values, context_kv, contexts, tokens, cache, local
            )
        flat = seen.values.reshape(*x.shape[:-1], cfg.heads * cfg.head_dim)
        out = Linear(cfg.width, ("heads", "embed"), use_bias=cfg.out_bias, lora=cfg.lora, name="out")(flat)
        x = x + (self._norm("attention_out_norm")(out) if cfg.sandwich_norms else out)
        mlp = MLP(cfg.width, cfg.mlp, cfg.gated, cfg.activation, cfg.mlp_bias, cfg.lora, name="mlp")
        out = mlp(self._norm("mlp_norm")(x))
        x = x + (self._norm("mlp_out_norm")(out) if cfg.sandwich_norms else out)
        return x, LayerOutput(keys, values, seen.mass, seen.received)

    def _attend_to_selves(self, queries, keys, values, tokens):
        cfg = self.config
        options = {"scale": cfg.query_scale, "softcap": cfg.score_softcap}
        own = Sequences(queries, keys, values, tokens.valid)
        return Attended(attend_to_selves(own, cfg.attention, **options), None, None)

    def _attend(self, queries, keys, values, context_kv, contexts, tokens, cache, local):
        """What is seen, and the keys and values to be left behind."""
        cfg = self.config
        if cache is None:
            own = KeyBlock(keys, values, tokens.order, tokens.valid, places=tokens.places)
        else:
            keys, all_keys = grow(cache.keys, keys, cache.index)
            values, all_values = grow(cache.values, values, cache.index)
            valid = jnp.ones_like(cache.order, bool)
            own = KeyBlock(all_keys, all_values, cache.order, valid, places=cache.places)
        blocks = [
            KeyBlock(*kv, context.order, context.valid, context.regions, context.places)
            for kv, context in zip(context_kv, contexts, strict=True)
        ]
        seen = attend(
            queries,
            tokens.order,
            [*blocks, own],
            places=tokens.places,
            reach=jnp.where(local, cfg.local_reach, FAR),
            scale=cfg.query_scale,
            softcap=cfg.score_softcap,
            query_weights=next((c.query_weights for c in contexts if c.query_weights is not None), None),
            query_chunk=cfg.query_chunk,
            causal=self.causal and cache is None,
        )
        return seen, keys, values

    def _norm(self, name: str) -> nn.Module:
        return make_norm(self.config.norm, self.config.norm_eps, name)

    def _project(self, x, positions, local):
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
        return queries, keys, values


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
        tokens: Tokens,
        added: Float[Array, "n B G T D"] | None = None,
        *,
        causal: bool = False,
    ) -> tuple[Float[Array, "B G T D"], LayerOutput]:
        """Runs all layers.

        Args:
            x: token features.
            context_kv: keys and values of what stands before the tokens, of all layers.
            contexts: where those keys stand.
            tokens: where the tokens of `x` stand.
            added: what is added behind the first n layers, if anything.
            causal: no token sees one behind it in its row.
        """
        cfg = self.config
        local = jnp.array(cfg.local_layers or (False,) * cfg.layers)
        each = LayerInput(context_kv, jnp.arange(cfg.layers), local)

        def layer(block, carry, each, contexts, tokens, added):
            x, tapped = carry
            x, out = block(split_over_prompts(x), each.context_kv, contexts, tokens, None, each.local)
            if added is not None:
                here = added[jnp.minimum(each.index, len(added) - 1)].astype(x.dtype)
                x = x + jnp.where(each.index < len(added), here, 0)
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
