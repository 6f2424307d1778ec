"""Latents between their image marks: two stacks side by side, each token with its own weights, all seeing each other.

Marks are words, so the weights that understand run them; but they stand inside the image, see its noise and are seen by
it, in every layer and at every step of the flow (BAGEL, arXiv 2505.14683).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.config import TransformerConfig
from mmrpt_jax.models.decoder import Block
from mmrpt_jax.models.layer_attention import KeysValues
from mmrpt_jax.models.layers import make_norm
from mmrpt_jax.models.remat import recomputed
from mmrpt_jax.models.tokens import Context, Tokens


def run_framed(
    config: TransformerConfig,
    drawing: dict,
    understanding: dict,
    latents: Float[Array, "B G I D"],
    marks: Float[Array, "B G M D"],
    place: Int[Array, "B G"],
    context_kv: Sequence[KeysValues],
    contexts: Sequence[Context],
) -> Float[Array, "B G I D"]:
    """Features of latents, as `Stack` would give them if marks stood among them and had weights of their own.

    Args:
        config: of both stacks.
        drawing: parameters of the stack that latents run through.
        understanding: likewise marks.
        latents: embedded.
        marks: embedded.
        place: the rotary position that all of them share.
        context_kv: keys and values of what stands before the image, of all layers.
        contexts: where those stand.
    """
    block = Block(config)
    at_latents, at_marks = (stand_together(place, x.shape[2]) for x in (latents, marks))
    with_latents, with_marks = ([*contexts, Context(x.order, x.valid)] for x in (at_latents, at_marks))

    def layer(carry, each):
        (latents, marks), (draws, understands, before, local) = carry, each

        def run(params, x, kv, contexts, stands):
            x, out = block.apply({"params": params}, x, kv, contexts, stands, None, local)
            return x, (out.keys, out.values)

        # For their keys and values: what else the marks would become without the latents is never computed.
        _, of_marks = run(understands, marks, before, contexts, at_marks)
        latents, of_latents = run(draws, latents, [*before, of_marks], with_marks, at_latents)
        marks, _ = run(understands, marks, [*before, of_latents], with_latents, at_marks)
        return (latents, marks), None

    local = jnp.array(config.local_layers or (False,) * config.layers)
    (latents, _), _ = jax.lax.scan(
        recomputed(layer, config.remat),
        (latents, marks),
        (drawing["layers"], understanding["layers"], list(context_kv), local),
        unroll=config.unroll,
    )
    return make_norm(config.norm, config.norm_eps).apply({"params": drawing["final_norm"]}, latents)


def stand_together(place: Int[Array, "B G"], count: int) -> Tokens:
    """Tokens that share one position and see each other."""
    places = jnp.broadcast_to(place[..., None], (*place.shape, count))
    return Tokens(places, places, jnp.ones(places.shape, bool))
