"""A rollout in parts: while the host rewards one part, the devices sample the next."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

Batch = TypeVar("Batch")
Sampled = TypeVar("Sampled")
Seen = TypeVar("Seen")
Earned = TypeVar("Earned")


def sample_and_reward(
    sample: Callable[[Batch, Key[Array, ""]], Sampled],
    read: Callable[[Batch, Sampled], Seen],
    reward: Callable[[Batch, Seen], Earned],
    batch: Batch,
    key: Key[Array, ""],
    *,
    parts: int = 1,
) -> tuple[list[Sampled], list[Earned]]:
    """What is sampled for a batch and what it earns, part by part; rewards overlap the next part's sampling.

    JAX dispatches a computation and does not wait for it. So the devices have the next part to sample before the host
    begins to reward one, and are idle only while it reads. All parts are sampled from the same parameters.

    Args:
        sample: dispatches the rollout of some prompts.
        read: waits for it, and for whatever else the devices are to find out: behind the next rollout that would wait.
        reward: the host's own work.
        batch: as for `split_rows`.
        key: of one part alone; each of several has a key of its own, so that what is sampled depends on their number.
        parts: how many, of equal size: they run one compiled program.
    """
    batches = split_rows(batch, parts)
    keys = [key] if parts == 1 else jax.random.split(key, parts)
    dispatches = (sample(*given) for given in zip(batches, keys, strict=True))
    sampled, earned = [next(dispatches)], []
    for part in batches:
        seen = read(part, sampled[-1])
        # The next, if there is one.
        sampled += itertools.islice(dispatches, 1)
        earned.append(reward(part, seen))
    return sampled, earned


def split_rows(batch: Batch, parts: int) -> list[Batch]:
    """Rows p, p + parts, p + 2 · parts, … of every array and list of a batch, for each part p.

    Rows stay on the device, and in the process, that has them: of a run of neighbours, every part has its share.
    """
    if parts == 1:
        return [batch]

    def rows(part: int, values: Any) -> Any:
        if not isinstance(values, jax.Array):
            return values[part::parts]
        return jax.device_put(_every(values, part, parts), values.sharding)

    return [jax.tree.map(functools.partial(rows, part), batch, is_leaf=_is_list) for part in range(parts)]


def join_rows(parts: Sequence[Batch]) -> Batch:
    """The batch whose parts `split_rows` would give."""
    if len(parts) == 1:
        return parts[0]

    def woven(*values: Any) -> Any:
        if isinstance(values[0], list):
            return [row for rows in zip(*values, strict=True) for row in rows]
        if isinstance(values[0], jax.Array):
            return jax.device_put(_weave(*values), values[0].sharding)
        return np.stack(values, axis=1).reshape(-1, *values[0].shape[1:])

    return jax.tree.map(woven, *parts, is_leaf=_is_list)


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


# Compiled, or each device would be sent the rows of all.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _every(array: Array, part: int, parts: int) -> Array:
    return array[part::parts]


@jax.jit
def _weave(*arrays: Array) -> Array:
    return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])
