"""Causal attention of sequences to themselves as one kernel, by name: what accelerators compute it with.

A sequence is a prompt, or, for kernels that take masks, a prompt and its branches as one row.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from mmrpt_jax.models.chunk_attention import ATTENDED
from mmrpt_jax.models.sharding import present_mesh, prompt_shards
from mmrpt_jax.models.tokens import RowShape

# Tokens of a block of Splash.
_BLOCKS = (512, 384, 256, 128)


class Sequences(NamedTuple):
    """Queries, keys and values of the same tokens; keys have their heads first, as in a `KeyBlock`."""

    queries: Float[Array, "B G T N H"]
    keys: Float[Array, "B K G T H"]
    values: Float[Array, "B K G T H"]
    valid: Bool[Array, "B G T"]


def attend_to_selves(
    sequences: Sequences,
    kernel: str,
    *,
    row: RowShape | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
) -> Float[Array, "B G T N H"]:
    """Softmax attention of every token over the valid ones of its sequence up to itself.

    What tokens that are not valid see is undefined, but finite.

    Args:
        sequences: their valid tokens may lie anywhere.
        kernel: one of `KERNELS`.
        row: sequences are rows of `GroupTokens`, whose branches do not see each other. Of `ROW_KERNELS` alone.
        scale: factor on scores; None: 1/sqrt(H).
        softcap: c in c·tanh(score/c); 0: none. Of "splash" alone.
    """
    scale = sequences.queries.shape[-1] ** -0.5 if scale is None else scale
    run = functools.partial(KERNELS[kernel], scale=scale, softcap=softcap)
    if row is not None:
        run = functools.partial(run, row=row)
    mesh = present_mesh()
    if mesh is None:
        return run(sequences)
    # The partitioner does not look into kernels: each device is told its prompts and its heads. What does not divide,
    # such as the one prompt that parameters are made with, every device computes whole.
    prompts = ("data", "fsdp") if len(sequences.keys) % prompt_shards() == 0 else None
    heads = "tensor" if sequences.keys.shape[1] % mesh.shape["tensor"] == 0 else None
    by_heads = PartitionSpec(prompts, heads)
    in_specs = Sequences(
        PartitionSpec(prompts, None, None, heads), by_heads, by_heads, PartitionSpec(prompts)
    )
    return jax.shard_map(run, in_specs=(in_specs,), out_specs=in_specs.queries, check_vma=False)(sequences)


def splash(
    sequences: Sequences,
    *,
    scale: float,
    softcap: float,
    row: RowShape | None = None,
    interpret: bool = False,
) -> Float[Array, "B G T N H"]:
    """Splash attention, JAX's own kernel for TPUs (Pallas), interpreted elsewhere; its blocks are not tuned."""
    # Who does not use it does not load Pallas.
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    batch, group, length, heads, _ = sequences.queries.shape
    block = _block(length)
    padding = _padding(length, block)
    if row is None:
        visible = library.CausalMask((length + padding,) * 2)
    else:
        visible = _by_identity(library.NumpyMask)(visible_in_row(row, padding))
    kernel = library.make_splash_mha_single_device(
        library.MultiHeadMask([visible] * heads),
        block_sizes=library.BlockSizes(*[block] * 8),
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
    run = jax.vmap(lambda q, k, v, segment: kernel(q, k, v, segment_ids=library.SegmentIds(segment, segment)))
    seen = run(queries, rows(sequences.keys), rows(sequences.values), segments)[:, :, :length]
    return seen.swapaxes(1, 2).reshape(sequences.queries.shape)


def cudnn(
    sequences: Sequences, *, scale: float, softcap: float, implementation: str = "cudnn"
) -> Float[Array, "B G T N H"]:
    """cuDNN's kernel for GPUs, by `jax.nn.dot_product_attention`.

    It knows padding at the end alone, so that valid tokens come first; their order, which is what causality asks for,
    stays.

    Raises:
        ValueError: there is a soft cap, which it has not.
    """
    if softcap:
        raise ValueError("cuDNN has no soft cap on scores")
    batch, group, length = sequences.valid.shape
    valid = sequences.valid.reshape(-1, length)
    valid_first = jnp.argsort(~valid, axis=1, stable=True)

    def rows(x: Float[Array, "B G T M H"], order: Int[Array, "BG T"]) -> Float[Array, "BG T M H"]:
        return jnp.take_along_axis(x.reshape(batch * group, *x.shape[2:]), order[..., None, None], axis=1)

    arrays = (sequences.queries, *(jnp.moveaxis(x, 1, 3) for x in (sequences.keys, sequences.values)))
    lengths = valid.sum(axis=1, dtype=jnp.int32)
    seen = jax.nn.dot_product_attention(
        *(rows(x, valid_first) for x in arrays),
        scale=scale,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    back = rows(seen[:, None], jnp.argsort(valid_first, axis=1))
    return back.reshape(sequences.queries.shape)


KERNELS: Mapping[str, Callable[..., Array]] = MappingProxyType({"splash": splash, "cudnn": cudnn})


def _by_identity(mask: type) -> type:
    """The same masks, which are equal if they are one: Splash would hash all they hold, for every head."""
    return type(mask.__name__, (mask,), {"__eq__": object.__eq__, "__hash__": object.__hash__})


# Those that compute a prompt and its branches as one row, and skip what of it is hidden.
ROW_KERNELS = frozenset({"splash"})


def visible_in_row(row: RowShape, padding: int = 0) -> Bool[np.ndarray, "S S"]:
    """Which tokens [query, key] of a row see each other: those up to themselves, of the prompt or of their branch."""
    prompt, group, length = row
    branch = np.repeat(np.arange(group + 1), [prompt, *[length] * group])
    # What is added to fill blocks belongs to no branch.
    branch = np.concatenate([branch, np.full(padding, group + 1)])
    mine = (branch == branch[:, None]) | (branch == 0)
    return mine & np.tri(len(branch), dtype=bool)


def _block(length: int) -> int:
    """The largest block of Splash that pads a sequence by an eighth at most, or else the least."""
    fitting = (size for size in _BLOCKS if _padding(length, size) <= length / 8)
    return next(fitting, _BLOCKS[-1])


def _padding(length: int, block: int) -> int:
    return -length % block
