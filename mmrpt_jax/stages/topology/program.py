"""What is compiled: a function of abstract arguments, and how those are made."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mmrpt_jax.models.sharding import batch_sharding
from mmrpt_jax.stages.trained import parts_of
from mmrpt_jax.training.state import Skipped, TrainState, init_of


class Program(NamedTuple):
    """One compiled function of an experiment, at the largest of its shapes.

    Attributes:
        run: the function, not yet jitted.
        arguments: abstract arrays that know where they live.
        flops: of the model, by formula: padding included, recomputation not.
        donated: numbers of the arguments that it writes over.
        trips: how often a loop runs whose end depends on data, at most.
        variants: shapes that it is compiled for: its buckets.
    """

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    flops: float
    donated: tuple[int, ...] = ()
    trips: int = 1
    variants: int = 1


def passes_of_update(config: ConfigDict) -> float:
    """What an update costs in forward passes: one, one for gradients of features, and one for those of weights.

    Gradients of adapters cost next to nothing, and what they rest on has none.
    """
    return 2.0 if config.train.lora.rank else 3.0


def whole(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array that every device has."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def split_batch(mesh: Mesh, batch: Any) -> Any:
    """A batch as a run places it, split over prompts."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch)


def abstract_state(
    config: ConfigDict, params: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """What `new_state` would make of abstract parameters: moments live where their parameters live."""
    trained, frozen = parts_of(config, params)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda leaf, parameter: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=parameter.sharding),
        jax.eval_shape(init_of(optimizer), trained),
        trained,
        transform_non_params=lambda leaf: whole(mesh, leaf.shape, leaf.dtype),
    )
    step, *skipped = (whole(mesh, (), "int32") for _ in range(3))
    return TrainState(step, trained, moments, Skipped(*skipped), frozen)
