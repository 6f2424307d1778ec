"""Low-rank adapters: W + (alpha / rank) · A B in place of W, where W rests (LoRA, Hu et al., 2021).

`Linear` declares A and B beside its kernel and adds (x A) B, so that W is never built. A config without adapters takes
the same parameters for those of the base: what is adapted and what it began as share one copy of W.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmrpt_jax.models.config import PROJECTIONS, LoraConfig, TransformerConfig, VLMConfig
from mmrpt_jax.models.paths import check_pattern, matches, overlay, split

# Where the stacks that can be adapted keep their layers. The experts that draw have the adapters of the decoder.
_DECODER, _VISION = "decoder/layers", "vision/stack/layers"
PROJECTION_PATHS = tuple(f"{stack}/{name}" for stack in (_DECODER, _VISION) for name in PROJECTIONS)


def adapt(config: VLMConfig, patterns: tuple[str, ...], *, rank: int, alpha: float) -> VLMConfig:
    """The model with adapters beside the projections that the patterns match.

    Args:
        config: the model.
        patterns: regular expressions over `PROJECTION_PATHS`, as `paths.matches` reads them.
        rank: of the adapters.
        alpha: as in `LoraConfig`.

    Raises:
        ValueError: a pattern matches no projection; the message names the nearest.
    """
    for pattern in patterns:
        check_pattern(pattern, PROJECTION_PATHS)

    def adapted(stack: TransformerConfig, path: str) -> TransformerConfig:
        places = [p for p in PROJECTIONS if any(matches(pattern, f"{path}/{p}") for pattern in patterns)]
        names = tuple(place.rpartition("/")[2] for place in places)
        return dataclasses.replace(stack, lora=LoraConfig(rank, alpha, names) if names else None)

    vision = dataclasses.replace(config.vision, transformer=adapted(config.vision.transformer, _VISION))
    return dataclasses.replace(config, decoder=adapted(config.decoder, _DECODER), vision=vision)


def is_adapter(path: str) -> bool:
    """Whether a path is that of an A or a B."""
    return path.rpartition("/")[2] in ("lora_a", "lora_b")


def adapter_only(params: dict) -> dict:
    """The adapters of a tree of parameters, and nothing else."""
    return split(params, is_adapter)[0]


def without_adapters(params: dict) -> dict:
    """The base that adapters stand beside; its weights are the same arrays, not copies."""
    return split(params, is_adapter)[1]


def adapter_delta(
    a: Float[Array, "*L D rank"], b: Float[Array, "*L rank F"], *, alpha: float
) -> Float[Array, "*L D F"]:
    """(alpha / rank) · A B, float32: what an adapter adds to its kernel."""
    wide = (x.astype(jnp.float32) for x in (a, b))
    return jnp.matmul(*wide, precision=jax.lax.Precision.HIGHEST) * (alpha / a.shape[-1])


def merge_lora(params: dict, lora: LoraConfig) -> dict:
    """Plain weights that compute what adapted ones do: kernels plus deltas, in the kernels' types, and no adapters.

    A sum is rounded once; in bfloat16 a merged model is close to the adapted one, not equal.
    """
    if "lora_a" in params:
        delta = adapter_delta(params["lora_a"], params["lora_b"], alpha=lora.alpha)
        kernel = (params["kernel"].astype(jnp.float32) + delta).astype(params["kernel"].dtype)
        return overlay(without_adapters(params), {"kernel": kernel})
    return {name: merge_lora(part, lora) if isinstance(part, dict) else part for name, part in params.items()}
