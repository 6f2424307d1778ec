"""Gradients of one global mean over micro-batches: sums are added, one division comes at the end."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mmrpt_jax.models.paths import overlay
from mmrpt_jax.training.state import TrainState, apply_gradients

# (params, batch) -> (sum of losses, (count, metrics as {name: (sum, count)}))
LossFn = Callable[[Any, Any], tuple[Float[Array, ""], tuple[Float[Array, ""], dict]]]


def accumulate_gradients(loss_fn: LossFn, params, batch, *, frozen=None, micro_batches: int = 1):
    """Loss, gradients and metrics of the whole batch, `micro_batches` parts at a time.

    The result does not depend on the split: every part returns unreduced sums, and the division by the total count
    happens once (loss = Σ sums / Σ counts).

    Args:
        loss_fn: returns (sum, (count, metrics)), metrics as (sum, count) pairs.
        params: differentiated argument; with `frozen`, a part of the parameters.
        batch: arrays with the batch on the leading axis, a multiple of `micro_batches`.
        frozen: the other parameters, of which no gradient is computed; None if there are none.
        micro_batches: parts.

    Returns:
        (gradients, metrics): metrics are scalars; `loss` is among them.

    Raises:
        ValueError: the batch does not divide into the parts.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % micro_batches:
        raise ValueError(f"batch of {size} prompts does not divide into {micro_batches} micro-batches")
    whole = loss_fn if frozen is None else lambda part, batch: loss_fn(overlay(frozen, part), batch)
    differentiate = jax.value_and_grad(whole, has_aux=True)
    if micro_batches == 1:
        (total, (count, metrics)), gradients = differentiate(params, batch)
    else:
        # Strided parts: neighbours, which live on one device, go to different parts.
        parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
        shapes = jax.eval_shape(differentiate, params, jax.tree.map(lambda x: x[0], parts))
        # Gradients of bfloat16 parameters are added up in float32.
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.promote_types(s.dtype, jnp.float32)), shapes)

        def add(carry, part):
            return jax.tree.map(jnp.add, carry, differentiate(params, part)), None

        ((total, (count, metrics)), gradients), _ = jax.lax.scan(add, zeros, parts)
    scale = 1.0 / jnp.maximum(count, 1.0)
    means = {name: s / jnp.maximum(c, 1.0) for name, (s, c) in metrics.items()}
    return jax.tree.map(lambda g: g * scale, gradients), {"loss": total * scale, **means}


def make_update(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, micro_batches: int = 1
) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """Builds `step(state, batch) -> (state, metrics)`: one optimizer step on the mean loss of a batch."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        gradients, metrics = accumulate_gradients(
            loss_fn, state.trained, batch, frozen=state.frozen, micro_batches=micro_batches
        )
        state, norm = apply_gradients(state, metrics["loss"], gradients, optimizer)
        return state, metrics | {"gradient_norm": norm}

    return step
