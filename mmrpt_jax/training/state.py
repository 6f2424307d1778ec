"""What a training step reads and writes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """Everything that changes from step to step on the devices.

    Attributes:
        step: optimizer steps taken.
        params: the policy.
        opt_state: optax state.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any


def new_state(params, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0; the optimizer's state lives where the parameters live."""
    return TrainState(jnp.zeros((), jnp.int32), params, jax.jit(optimizer.init)(params))


def make_optimizer(
    *,
    learning_rate: float,
    steps: int,
    warmup: int = 0,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    b2: float = 0.98,
) -> optax.GradientTransformation:
    """AdamW behind a global-norm clip; linear warm-up, then cosine decay to a tenth."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else learning_rate,
        peak_value=learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=0.1 * learning_rate,
    )
    adam = optax.adamw(
        schedule, b2=b2, weight_decay=weight_decay, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
    )
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam)
