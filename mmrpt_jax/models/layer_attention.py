"""What a layer's tokens look at: keys computed before and their own, a cache, or the group that they are a row of."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.models.attention import FAR, attend
from mmrpt_jax.models.cache import Cache, grow
from mmrpt_jax.models.chunk_attention import Attended, KeyBlock, heads_first
from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.fused_attention import ROW_KERNELS, Sequences, attend_to_selves
from mmrpt_jax.models.tokens import Context, GroupTokens, RowShape, Tokens, join_row

# Keys and values of a context, as in a `KeyBlock`; with a leading L axis for all layers.
KeysValues = tuple[Float[Array, "*E S H"], Float[Array, "*E S H"]]


class Projected(NamedTuple):
    """What a layer makes of its tokens: what they look for, and what others see of them."""

    queries: Float[Array, "B G T N H"]
    keys: Float[Array, "B G T K H"]
    values: Float[Array, "B G T K H"]


class LayerAttention(NamedTuple):
    """The attention of a layer; each way to look gives what is seen and, but for groups, what to leave behind.

    Attributes:
        config: the layer's.
        causal: no token sees one behind it in its row.
        local: whether this is one of the layers that see only what is near.
    """

    config: TransformerConfig
    causal: bool = False
    local: Bool[Array, ""] | bool = False

    def behind(
        self,
        own: Projected,
        tokens: Tokens,
        context_kv: Sequence[KeysValues] = (),
        contexts: Sequence[Context] = (),
    ) -> tuple[Attended, KeysValues]:
        """Tokens that see contexts, if there are any, and themselves."""
        keys, values = heads_first(own.keys), heads_first(own.values)
        if self.causal and self.config.attention != "xla" and not contexts:
            sequences = Sequences(own.queries, keys, values, tokens.valid)
            return self._by_kernel(sequences), (keys, values)
        selves = KeyBlock(keys, values, tokens.order, tokens.valid, places=tokens.places)
        blocks = [*_key_blocks(context_kv, contexts), selves]
        return self._attend(own.queries, tokens, blocks, contexts, causal=self.causal), (keys, values)

    def with_cache(
        self,
        own: Projected,
        tokens: Tokens,
        context_kv: Sequence[KeysValues],
        contexts: Sequence[Context],
        cache: Cache,
    ) -> tuple[Attended, KeysValues]:
        """The newest token of every branch (T = 1), which sees contexts and the branch so far; leaves the cache."""
        keys, all_keys = grow(cache.keys, heads_first(own.keys), cache.index)
        values, all_values = grow(cache.values, heads_first(own.values), cache.index)
        valid = jnp.ones_like(cache.order, bool)
        branch = KeyBlock(all_keys, all_values, cache.order, valid, places=cache.places)
        blocks = [*_key_blocks(context_kv, contexts), branch]
        return self._attend(own.queries, tokens, blocks, contexts), (keys, values)

    def in_group(self, own: Projected, row: GroupTokens) -> Attended:
        """A prompt, which sees itself, and its branches, each of which sees the prompt and itself."""
        # Places are those of local layers or of packed branches, which no mask made beforehand can show.
        plain = row.context.regions is None and row.branches.places is None
        if plain and self.causal and self.config.attention in ROW_KERNELS:
            keys, values = heads_first(own.keys), heads_first(own.values)
            return self._by_kernel(Sequences(own.queries, keys, values, row.valid), row.shape)
        prompt, branches = (Projected(*part) for part in zip(*map(row.split, own), strict=True))
        of_prompt, (keys, values) = self.behind(prompt, row.prompt)
        of_branches, _ = self._replace(causal=True).behind(
            branches, row.branches, [(keys[:, :, 0], values[:, :, 0])], [row.context]
        )
        return of_branches._replace(values=join_row(of_prompt.values, of_branches.values))

    def _by_kernel(self, sequences: Sequences, row: RowShape | None = None) -> Attended:
        cfg = self.config
        options = {"row": row, "scale": cfg.query_scale, "softcap": cfg.score_softcap}
        return Attended(attend_to_selves(sequences, cfg.attention, **options), None, None)

    def _attend(self, queries, tokens, blocks, contexts, *, causal=False) -> Attended:
        cfg = self.config
        return attend(
            queries,
            tokens.order,
            blocks,
            places=tokens.places,
            reach=jnp.where(self.local, cfg.local_reach, FAR),
            scale=cfg.query_scale,
            softcap=cfg.score_softcap,
            query_weights=next((c.query_weights for c in contexts if c.query_weights is not None), None),
            query_chunk=cfg.query_chunk,
            causal=causal,
        )


def _key_blocks(context_kv: Sequence[KeysValues], contexts: Sequence[Context]) -> list[KeyBlock]:
    return [
        KeyBlock(*kv, context.order, context.valid, context.regions, context.places)
        for kv, context in zip(context_kv, contexts, strict=True)
    ]
