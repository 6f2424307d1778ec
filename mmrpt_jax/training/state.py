"""What a training step reads and writes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.paths import overlay, split


class Skipped(NamedTuple):
    """Updates that were left out because the loss or the gradient was not finite.

    Attributes:
        total: how many.
        in_a_row: how many since the last that was not.
    """

    total: Int[Array, ""]
    in_a_row: Int[Array, ""]


class TrainState(NamedTuple):
    """What a training step reads and writes.

    Attributes:
        step: steps of the training loop; a policy's step is one rollout, however many updates it feeds.
        trained: the parameters that gradients are taken of; everything, where nothing is frozen.
        opt_state: optax state of what is trained.
        skipped: counts the updates that were left out.
        frozen: the parameters that rest, or None. They may be shared with others, such as the reference policy.
    """

    step: Int[Array, ""]
    trained: Any
    opt_state: Any
    skipped: Skipped
    frozen: Any = None

    @property
    def params(self) -> Any:
        """All parameters: the policy."""
        return self.trained if self.frozen is None else overlay(self.frozen, self.trained)


def new_state(
    params: Any,
    optimizer: optax.GradientTransformation,
    trains: Callable[[str], bool] | None = None,
    *,
    keep: bool = False,
) -> TrainState:
    """A state at step 0; moments live where their parameters live, scalars everywhere.

    Args:
        params: where to begin.
        optimizer: sees what trains, in float32 whatever it is kept in.
        trains: path -> whether a parameter does; all do if None.
        keep: whether `params` are needed later. Steps write over what trains, so it is copied then; what is frozen
            is shared either way.
    """
    trained, frozen = (params, None) if trains is None else split(params, trains)
    if keep:
        trained = jax.tree.map(jnp.copy, trained)
    leaf = jax.tree.leaves(trained)[0]
    everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec()) if _is_named(leaf) else leaf.sharding
    init = init_of(optimizer)
    shardings = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, parameter: parameter.sharding,
        jax.eval_shape(init, trained),
        trained,
        transform_non_params=lambda _: everywhere,
    )
    opt_state = jax.jit(init, out_shardings=shardings)(trained)
    # Three arrays, not one three times: steps write over each.
    step, *skipped = (jax.device_put(jnp.zeros((), jnp.int32), everywhere) for _ in range(3))
    return TrainState(step, trained, opt_state, Skipped(*skipped), frozen)


def init_of(optimizer: optax.GradientTransformation) -> Callable[[Any], Any]:
    """What makes the optimizer's state: float32, or moments of bfloat16 parameters would lose what they add up."""
    return lambda trained: optimizer.init(_wide(trained))


def apply_gradients(
    state: TrainState,
    loss: Float[Array, ""],
    gradients: Any,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Float[Array, ""]]:
    """One optimizer step in float32, rounded to the parameters' type at its end.

    If the loss or the gradients' norm is not finite, parameters and moments stay as they are, and the update is counted
    as skipped: one bad batch must neither end a run nor go into its parameters. (`optax.apply_if_finite` does not look
    at the loss, and lets bad updates in after some.)

    Returns:
        The next state, and the norm of the gradients before any clipping.
    """
    gradients = _wide(gradients)
    norm = optax.tree.norm(gradients)
    updates, opt_state = optimizer.update(gradients, state.opt_state, _wide(state.trained))
    trained = optax.apply_updates(state.trained, updates)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    trained, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (trained, opt_state), (state.trained, state.opt_state)
    )
    skipped = Skipped(state.skipped.total + ~finite, jnp.where(finite, 0, state.skipped.in_a_row + 1))
    return TrainState(state.step + 1, trained, opt_state, skipped, state.frozen), norm


def compile_step(
    step: Callable[[TrainState, Any], tuple[TrainState, dict]],
) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """A compiled step that writes over the state it is given, but for what is frozen."""

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(moving: TrainState, frozen: Any, batch: Any) -> tuple[TrainState, dict]:
        state, metrics = step(moving._replace(frozen=frozen), batch)
        return state._replace(frozen=None), metrics

    def run(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        moved, metrics = compiled(state._replace(frozen=None), state.frozen, batch)
        return moved._replace(frozen=state.frozen), metrics

    return run


def _wide(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


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
