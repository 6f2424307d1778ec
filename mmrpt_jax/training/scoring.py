"""Which caption tokens need the image: every dependency score from one pass with the image and one without."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmrpt_jax.dependency import detect_sinks, lift, log_likelihood_ratio, visual_dependency
from mmrpt_jax.models.config import VLMConfig
from mmrpt_jax.models.head import output_matrix, score_tokens, token_kl
from mmrpt_jax.models.vision import count_tokens
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptTokens
from mmrpt_jax.training.supervised import hide_images

KINDS = ("attention", "lift", "sink_free", "llr", "kl")


class TokenDependency(NamedTuple):
    """Scores of caption tokens; all [B G T] but `received`.

    Attributes:
        attention: D_vis as published, in [0, 1].
        lift: D_vis over its value under uniform attention, ≥ 0.
        sink_free: D_vis without the patches that draw attention whatever the word, in [0, 1].
        llr: log p(t | image) − log p(t | no image), nats.
        kl: KL of the next-token distributions with and without the image, nats, ≥ 0.
        blind_logprobs: log p(t | no image), nats, ≤ 0; what the leak filter reads.
        received: [B I] attention mass that each visual token received from the caption; of a prompt with fewer than I,
            the first.
    """

    attention: Float[Array, "B G T"]
    lift: Float[Array, "B G T"]
    sink_free: Float[Array, "B G T"]
    llr: Float[Array, "B G T"]
    kl: Float[Array, "B G T"]
    blind_logprobs: Float[Array, "B G T"]
    received: Float[Array, "B I"]


def select_layers(num_layers: int, fractions: tuple[float, float]) -> list[int]:
    """Layers between two fractions of the depth; the layers of MMRPT are not published, "upper middle" is.

    Raises:
        ValueError: no layer lies between them.
    """
    low, high = fractions
    chosen = [layer for layer in range(num_layers) if low <= (layer + 0.5) / num_layers <= high]
    if not chosen:
        raise ValueError(f"no layer of {num_layers} lies between the depths {low} and {high}")
    return chosen


def make_dependency_scorer(
    config: VLMConfig, *, layers: Sequence[int], heads: str = "mean", top_k: int = 1, query_shift: int = 0
) -> Callable[..., TokenDependency]:
    """Builds `score(params, images, prompt, captions) -> TokenDependency`, to be jitted by the caller.

    The denominator of D_vis is image and caption: the instruction's tokens count on neither side.

    Args:
        config: the model.
        layers: whose attention is read.
        heads: as in `dependency.visual_dependency`.
        top_k: likewise.
        query_shift: 0 reads the row of token t, −1 the row that predicts it.
    """
    model, chosen = VLM(config), jnp.asarray(layers)

    def score(params, images, prompt: PromptTokens, captions: BranchTokens) -> TokenDependency:
        def run(prompt, regions=None, weights=None):
            return model.apply(
                {"params": params}, images, prompt, captions, regions, weights, method=VLM.run_group
            )

        image = prompt.image_slots & prompt.valid
        counted = captions.valid.astype(jnp.float32)
        seeing, out = run(prompt, _columns(image, prompt.valid & ~image), counted)
        received = out.received[chosen].mean(axis=(0, 3))
        # Sinks are known only after a pass; the second one measures the mass without them.
        sinks = detect_sinks(received[:, None], patch_valid=image)
        _, sinkless = run(prompt, _columns(image & ~sinks, prompt.valid & ~image, image & sinks), counted)
        blind, _ = run(hide_images(prompt, jnp.ones(image.shape[0], bool)))

        def share(mass):
            visual, elsewhere = mass[chosen, ..., 0], mass[chosen, ..., 1:].sum(axis=-1)
            return visual_dependency(
                visual, 1.0 - visual - elsewhere, heads=heads, top_k=top_k, query_shift=query_shift
            )

        attention = share(out.mass)
        caption_keys = jnp.broadcast_to(jnp.arange(1, attention.shape[-1] + 1) + query_shift, attention.shape)
        image_count = jnp.broadcast_to(image.sum(-1)[:, None], attention.shape[:2])
        output, ids = output_matrix(params), captions.ids
        with_image = score_tokens(seeing, output, ids, softcap=config.logit_softcap).logprobs
        without_image = score_tokens(blind, output, ids, softcap=config.logit_softcap).logprobs
        return TokenDependency(
            attention=attention,
            lift=lift(attention, image_count, caption_keys),
            sink_free=share(sinkless.mass),
            llr=log_likelihood_ratio(with_image, without_image),
            kl=token_kl(seeing, blind, output, softcap=config.logit_softcap),
            blind_logprobs=without_image,
            received=_per_patch(received, image, count_tokens(config.vision, images)),
        )

    return score


def _columns(*regions: Bool[Array, "B P"]) -> Float[Array, "B P M"]:
    return jnp.stack(regions, axis=-1).astype(jnp.float32)


def _per_patch(received: Float[Array, "B P"], slots, num_patches: int) -> Float[Array, "B I"]:
    """Picks the image's keys, in order, out of the prompt's."""
    where = jnp.argsort(~slots, axis=1, stable=True)[:, :num_patches]
    return jnp.take_along_axis(received, where, axis=1)
