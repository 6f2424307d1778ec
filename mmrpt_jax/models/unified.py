"""The unified model: what it draws is one more branch behind the prompt that it understands.

Tokens are routed to experts by what they are (BAGEL, arXiv 2505.14683): text and visual tokens to the ones that
understand, latents to the ones that draw. A segment (prompt, text branch, latent branch) is all of one kind, but for
the marks around latents where there are any, so the routing is known before anything runs: a latent branch is the same
stack with other weights laid over it.
`params["generation"]` holds those weights, and nothing that is shared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmrpt_jax.models.decoder import Stack
from mmrpt_jax.models.framed import run_framed, stand_together
from mmrpt_jax.models.latents import LatentTokens
from mmrpt_jax.models.layer_attention import KeysValues
from mmrpt_jax.models.patches import ImagePatches
from mmrpt_jax.models.paths import overlay
from mmrpt_jax.models.tokens import Context
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptState, PromptTokens, prompt_context


class ThoughtState(NamedTuple):
    """Computed text branches: what the image behind each of them needs of it.

    Attributes:
        keys: [L B K G R H].
        values: [L B K G R H].
        valid: [B G R].
        length: [B G], rotary positions that the branch takes.
    """

    keys: Float[Array, "L B K G R H"]
    values: Float[Array, "L B K G R H"]
    valid: Bool[Array, "B G R"]
    length: Int[Array, "B G"]


def copy_experts(params: dict, experts: str) -> dict:
    """Parameters whose generation experts are copies of what understands; any that were there are replaced.

    Args:
        params: with `decoder`.
        experts: "dense", "moe" or "mot", as in `UnifiedConfig`.

    Raises:
        ValueError: another value of `experts`.
    """
    decoder = params["decoder"]
    separate = {"dense": {}, "moe": {"layers": {"mlp": decoder["layers"]["mlp"]}}, "mot": decoder}
    if experts not in separate:
        raise ValueError(f"experts is {experts!r}; it must be one of {', '.join(map(repr, separate))}")
    # Real copies: a training step that takes its state over may not be given one buffer twice.
    twins = jax.tree.map(jnp.copy, separate[experts])
    rest = {name: part for name, part in params.items() if name != "generation"}
    return rest | {"generation": twins} if twins else rest


def generation_stack(params: dict) -> dict:
    """Parameters of the stack that latents run through."""
    return overlay(params["decoder"], params.get("generation", {}))


def encode_prompt(
    config: UnifiedConfig,
    params,
    images: UInt8[Array, "B C h w 3"] | ImagePatches | None,
    prompt: PromptTokens,
) -> PromptState:
    """Runs a prompt once, for any number of branches of either kind; as `VLM.encode_prompt`."""
    return VLM(config.vlm).apply({"params": params}, images, prompt, method=VLM.encode_prompt)


def encode_thoughts(
    config: UnifiedConfig, params, prompt: PromptState, branches: BranchTokens
) -> ThoughtState:
    """Runs the texts that images are to be drawn behind, each behind its own."""
    _, out = VLM(config.vlm).apply({"params": params}, prompt, branches, method=VLM.extend)
    return ThoughtState(out.keys, out.values, branches.valid, branches.valid.sum(axis=-1, dtype=jnp.int32))


def velocity(
    config: UnifiedConfig,
    params,
    prompt: PromptState,
    latents: Float[Array, "B G I features"],
    times: Float[Array, "B G"],
    thoughts: ThoughtState | None = None,
) -> Float[Array, "B G I features"]:
    """The flow ε − x₀ at noisy latents x_t = (1 − t)·x₀ + t·ε, float32.

    The latents of an image see the whole prompt, the text branch in front of them if there is one, each other and the
    marks around them if there are any; no other token sees them. They share one rotary position, the next one, and are
    told apart by fixed positions of the grid. Pictures in the prompt are seen through the vision tower; their clean
    latents are no part of it.

    Args:
        config: the model.
        params: its parameters.
        prompt: from `encode_prompt`.
        latents: packed latents of G images.
        times: t of each image, in [0, 1]; 1 is noise.
        thoughts: from `encode_thoughts`, the text before each image.
    """
    width = config.vlm.decoder.width
    tokens, variables = LatentTokens(config.latent, width), {"params": params["latents"]}
    x = tokens.apply(variables, latents, times, method=LatentTokens.embed).astype(prompt.keys.dtype)
    context_kv, contexts, place = (
        [(prompt.keys, prompt.values)],
        [prompt_context(prompt.valid)],
        prompt.length[:, None],
    )
    if thoughts is not None:
        context_kv.append((thoughts.keys, thoughts.values))
        contexts.append(Context(jnp.zeros(thoughts.valid.shape, jnp.int32), thoughts.valid))
        place = place + thoughts.length
    place = jnp.broadcast_to(place, x.shape[:2])
    hidden = _draw(config, params, x, place, context_kv, contexts)
    return tokens.apply(variables, hidden, latents, times, method=LatentTokens.flow)


def _draw(
    config: UnifiedConfig,
    params,
    x: Float[Array, "B G I D"],
    place: Int[Array, "B G"],
    context_kv: Sequence[KeysValues],
    contexts: Sequence[Context],
) -> Float[Array, "B G I D"]:
    """Runs embedded latents, alone or between their marks."""
    decoder, stack = config.vlm.decoder, generation_stack(params)
    if not config.latent.image_marks:
        return Stack(decoder).apply(
            {"params": stack}, x, context_kv, contexts, stand_together(place, x.shape[2])
        )[0]
    marks = VLM(config.vlm).apply({"params": params}, jnp.array(config.latent.image_marks), method=VLM.embed)
    marks = jnp.broadcast_to(marks.astype(x.dtype), (*x.shape[:2], *marks.shape))
    return run_framed(decoder, stack, params["decoder"], x, marks, place, context_kv, contexts)
