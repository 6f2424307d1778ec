"""What a layer leaves for the backward pass, and what of it is computed once more instead."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

from mmrpt_jax.models.chunk_attention import ATTENDED

Layer = TypeVar("Layer", bound=Callable)


def recomputed(layer: Layer, remat: str, checkpoint: Callable[..., Any] = jax.checkpoint) -> Layer:
    """The same layer of a scan, with less stored.

    Args:
        layer: to be scanned.
        remat: as in `TransformerConfig`.
        checkpoint: `jax.checkpoint`, or what takes its place where a layer is a module.
    """
    if remat == "none":
        return layer
    keep = jax.checkpoint_policies.save_only_these_names(ATTENDED) if remat == "keep_attention" else None
    # A scan keeps the two passes apart: nothing could be taken for the same computation.
    return checkpoint(layer, prevent_cse=False, policy=keep)
