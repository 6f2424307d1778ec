"""Causal attention of sequences to themselves as one kernel, by name: what computes prompts on accelerators.

Branches look at their prompt as well as at themselves, and are asked what they look at: they stay with `attend`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mha_single_device,
)
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from mmrpt_jax.models.chunk_attention import ATTENDED
from mmrpt_jax.models.sharding import present_mesh

# Tokens of a block of Splash, at most, and what they are a multiple of.
_BLOCK, _LANES = 512, 128


class Sequences(NamedTuple):
    """Queries, keys and values of the same tokens; keys have their heads first, as in a `KeyBlock`."""

    queries: Float[Array, "B G T N H"]
    keys: Float[Array, "B K G T H"]
    values: Float[Array, "B K G T H"]
    valid: Bool[Array, "B G T"]


def attend_to_selves(
    sequences: Sequences, kernel: str, *, scale: float | None = None, softcap: float = 0.0
) -> Float[Array, "B G T N H"]:
    """Softmax attention of every token over the valid ones of its sequence up to itself.

    What tokens that are not valid see is undefined, but finite.

    Args:
        sequences: their valid tokens may lie anywhere.
        kernel: one of `KERNELS`.
        scale: factor on scores; None: 1/sqrt(H).
        softcap: c in c·tanh(score/c); 0: none. Of "splash" alone.
    """
    scale = sequences.queries.shape[-1] ** -0.5 if scale is None else scale
    run = functools.partial(KERNELS[kernel], scale=scale, softcap=softcap)
    mesh = present_mesh()
    if mesh is None:
        return run(sequences)
    # The partitioner does not look into kernels: each device is told its prompts and its heads.
    tensor = mesh.shape["tensor"]
    heads = "tensor" if sequences.keys.shape[1] % tensor == 0 else None
    prompts = ("data", "fsdp")
    by_heads = PartitionSpec(prompts, heads)
    in_specs = Sequences(
        PartitionSpec(prompts, None, None, heads), by_heads, by_heads, PartitionSpec(prompts)
    )
    return jax.shard_map(run, in_specs=(in_specs,), out_specs=in_specs.queries, check_vma=False)(sequences)


def splash(
    sequences: Sequences, *, scale: float, softcap: float, interpret: bool = False
) -> Float[Array, "B G T N H"]:
    """Splash attention, JAX's own kernel for TPUs (Pallas), interpreted elsewhere; its blocks are not tuned."""
    batch, group, length, heads, _ = sequences.queries.shape
    block = min(_BLOCK, _up(length, _LANES))
    padding = _up(length, block) - length
    mask = MultiHeadMask([CausalMask((length + padding,) * 2) for _ in range(heads)])
    sizes = BlockSizes(*[block] * 8)
    kernel = make_splash_mha_single_device(
        mask,
        block_sizes=sizes,
        attn_logits_soft_cap=softcap or None,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )

    def rows(x: Float[Array, "B M G T H"]) -> Float[Array, "BG M T H"]:
        flat = jnp.moveaxis(x, 2, 1).reshape(batch * group, x.shape[1], length, -1)
        return jnp.pad(flat, ((0, 0), (0, 0), (0, padding), (0, 0)))

    queries = rows(jnp.moveaxis(sequences.queries * scale, 3, 1))
    # Tokens see those of their own segment: valid ones each other.
    segments = jnp.pad(sequences.valid.reshape(-1, length).astype(jnp.int32), ((0, 0), (0, padding)))
    run = jax.vmap(lambda q, k, v, segment: kernel(q, k, v, segment_ids=SegmentIds(segment, segment)))
    seen = run(queries, rows(sequences.keys), rows(sequences.values), segments)[:, :, :length]
    return seen.swapaxes(1, 2).reshape(sequences.queries.shape)


def dot_product(
    sequences: Sequences, *, scale: float, softcap: float, implementation: str = "cudnn"
) -> Float[Array, "B G T N H"]:
    """`jax.nn.dot_product_attention`, which is cuDNN's kernel on GPUs. `softcap` must be 0."""
    batch, group, length = sequences.valid.shape
    keys, values = (
        jnp.moveaxis(x, 1, 3).reshape(batch * group, length, x.shape[1], -1)
        for x in (sequences.keys, sequences.values)
    )
    queries = sequences.queries.reshape(batch * group, length, *sequences.queries.shape[3:])
    mask = sequences.valid.reshape(-1, 1, 1, length)
    options = {"scale": scale, "is_causal": True, "implementation": implementation}
    seen = jax.nn.dot_product_attention(queries, keys, values, mask=mask, **options)
    return seen.reshape(sequences.queries.shape)


KERNELS: Mapping[str, Callable[..., Array]] = MappingProxyType({"splash": splash, "cudnn": dot_product})


def _up(length: int, to: int) -> int:
    return to * math.ceil(length / to)
