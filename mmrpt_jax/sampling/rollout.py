"""Groups of answers: G branches sampled token by token behind one computed prompt, in one compiled loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmrpt_jax.models.cache import Cache, empty_slots
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.decoder import Block
from mmrpt_jax.models.head import logits, output_matrix
from mmrpt_jax.models.layers import make_norm
from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.places import branch_places
from mmrpt_jax.models.vlm import VLM, PromptState, PromptTokens, prompt_context


class Rollout(NamedTuple):
    """Sampled groups.

    Attributes:
        ids: [B G R] token ids; 0 after the end token.
        valid: [B G R], True up to and including the end token.
        logprobs: [B G R] of the sampled ids under the sampling distribution (at temperature 0, under that of
            temperature 1), nats, ≤ 0; 0 where not valid.
        truncated: [B G], True where no end token was sampled within R tokens.
    """

    ids: Int[Array, "B G R"]
    valid: Bool[Array, "B G R"]
    logprobs: Float[Array, "B G R"]
    truncated: Bool[Array, "B G"]


class _Loop(NamedTuple):
    step: Int[Array, ""]
    scores: Float[Array, "B G V"]  # the next token's logits
    done: Bool[Array, "B G"]
    rollout: Rollout
    caches: list  # one (keys, values) per layer: separate carries are updated in place


def make_rollout(
    config: VLMConfig,
    *,
    group_size: int,
    max_tokens: int,
    end_ids: Sequence[int],
    banned: Bool[Array, " V"] | None = None,
    temperature: float = 1.0,
) -> Callable[..., Rollout]:
    """Builds `rollout(params, images, prompt, key) -> Rollout`, to be jitted by the caller.

    The prompt is computed once per group and its keys are never copied. Temperature 0 takes the most likely
    token. Sampling is exact (Gumbel-max over the whole vocabulary but the banned ids). Row b draws the noise
    that `key` has for row b, step by step: its tokens depend neither on the other rows nor on the mesh.

    Args:
        config: the model.
        group_size: G.
        max_tokens: R.
        end_ids: tokens that end a branch; several are allowed.
        banned: ids that must never be sampled, such as the image placeholder.
        temperature: the same value must be used when the tokens are scored.
    """
    model = VLM(config)
    ends = jnp.asarray(end_ids, jnp.int32)
    sharpness = {"temperature": temperature or 1.0, "banned": banned, "softcap": config.logit_softcap}

    def rollout(
        params, images: UInt8[Array, "B C h w 3"] | ImagePatches | None, prompt: PromptTokens, key
    ) -> Rollout:
        output = output_matrix(params)
        state = model.apply({"params": params}, images, prompt, method=VLM.encode_prompt)
        decode = make_decode_step(params, config, state, group_size=group_size, max_tokens=max_tokens)

        def advance(loop: _Loop) -> _Loop:
            draw = jax.random.fold_in(key, loop.step)
            noise = jax.random.gumbel(draw, loop.scores.shape) if temperature else 0.0
            ids = _largest(loop.scores + noise)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(loop.scores), ids[..., None], axis=-1)[..., 0]
            alive = ~loop.done
            ended = jnp.isin(ids, ends)
            result = Rollout(
                loop.rollout.ids.at[:, :, loop.step].set(jnp.where(alive, ids, 0)),
                loop.rollout.valid.at[:, :, loop.step].set(alive),
                loop.rollout.logprobs.at[:, :, loop.step].set(jnp.where(alive, chosen, 0.0)),
                loop.rollout.truncated & ~(alive & ended),
            )
            hidden, caches = decode(ids, loop.step, loop.caches)
            scores = logits(hidden, output, **sharpness)
            return _Loop(loop.step + 1, scores, loop.done | ended, result, caches)

        first = logits(state.last_hidden, output, **sharpness)
        start = _start(first, state, config, group_size, max_tokens)
        unfinished = lambda loop: (loop.step < max_tokens) & ~loop.done.all()  # noqa: E731
        return jax.lax.while_loop(unfinished, advance, start).rollout

    return rollout


def _largest(scores: Float[Array, "*E V"]) -> Int[Array, "*E"]:
    """The first id of the largest score: two reductions, since `argmax` is one of pairs, which CPUs do one by one."""
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    last = scores.shape[-1] - 1
    return jnp.min(jnp.where(scores == scores.max(axis=-1, keepdims=True), ids, last), axis=-1)


def _start(first, state, config, group_size, max_tokens) -> _Loop:
    batch = first.shape[0]
    shape = (batch, group_size, max_tokens)
    heads = (config.decoder.kv_heads, group_size, max_tokens, config.decoder.head_dim)
    cache = empty_slots((batch, *heads), state.keys.dtype)
    scores = jnp.broadcast_to(first[:, None], (batch, group_size, first.shape[-1]))
    everywhere = jnp.ones(shape[:2], bool)
    empty = Rollout(
        ids=jnp.zeros(shape, jnp.int32),
        valid=jnp.zeros(shape, bool),
        logprobs=jnp.zeros(shape, jnp.float32),
        truncated=everywhere,
    )
    return _Loop(jnp.int32(0), scores, ~everywhere, empty, [(cache, cache)] * config.decoder.layers)


def make_decode_step(
    params, config: VLMConfig, prompt: PromptState, *, group_size: int, max_tokens: int
) -> Callable[..., tuple[Float[Array, "B G D"], list]]:
    """Builds `decode(ids [B G], step, caches) -> (hidden [B G D], caches)` for one token of every branch.

    Layers are unrolled; their parameters and the prompt's keys are sliced once, outside the token loop.
    """
    cfg = config.decoder
    stacked = params["decoder"]["layers"]
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(cfg.layers)]
    prompt_kv = [(prompt.keys[i], prompt.values[i]) for i in range(cfg.layers)]
    context = prompt_context(prompt.valid)
    everywhere = jnp.ones((prompt.valid.shape[0], group_size, max_tokens), bool)
    slots = branch_places(config, prompt.length, prompt.valid, everywhere)
    local = cfg.local_layers or (False,) * cfg.layers
    block, norm = Block(cfg), make_norm(cfg.norm, cfg.norm_eps)

    def decode(ids, step, caches):
        tokens = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, step, 1, axis=2), slots)
        x = VLM(config).apply({"params": params}, ids[..., None], method=VLM.embed)
        grown = []
        for i, layer in enumerate(layers):
            cache = Cache(*caches[i], slots.order, step, slots.places)
            x, out = block.apply({"params": layer}, x, [prompt_kv[i]], [context], tokens, cache, local[i])
            grown.append((out.keys, out.values))
        return norm.apply({"params": params["decoder"]["final_norm"]}, x)[:, :, 0], grown

    return decode
