"""What a training step reads and writes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int


class TrainState(NamedTuple):
    """Everything that changes from step to step on the devices.

    Attributes:
        step: steps of the training loop; a policy's step is one rollout, however many updates it feeds.
        params: the policy.
        opt_state: optax state.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any


def new_state(params, optimizer: optax.GradientTransformation) -> TrainState:
    """A state at step 0; moments live where their parameters live, scalars everywhere."""
    leaf = jax.tree.leaves(params)[0]
    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec()) if _is_named(leaf) else leaf.sharding
    shardings = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, parameter: parameter.sharding,
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda _: everywhere,
    )
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(params)
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), everywhere), params, opt_state)


def apply_gradients(
    state: TrainState, gradients: Any, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """One optimizer step; returns the next state and the norm of the gradients before any clipping."""
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), optax.tree.norm(gradients)


def _is_named(array: jax.Array) -> bool:
    return isinstance(array.sharding, NamedSharding)


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
