"""Sampling by weights in a layout of their own: fetched once for a rollout, not for every layer and token."""

from collections.abc import Callable
from typing import TypeVar

import jax

from mmrpt_jax.models.initialise import Config, abstract_boxes
from mmrpt_jax.models.sharding import SAMPLING_RULES, parameter_shardings, present_mesh

Sampled = TypeVar("Sampled")


def with_gathered_weights(rollout: Callable[..., Sampled], config: Config) -> Callable[..., Sampled]:
    """`rollout(params, ...)`, to be jitted, by weights that are split over `tensor` alone.

    Tokens come one by one, and each would have to fetch, or add up over, what `fsdp` has split. Here it is fetched
    once, before the first; a device holds its part of `tensor` of all weights while the rollout runs.

    Args:
        rollout: to be called under the mesh of `jax.set_mesh`; without one, its weights stay where they are.
        config: the model of `params`.
    """

    def gathered(params, *inputs) -> Sampled:
        mesh = present_mesh()
        if mesh is not None:
            layout = parameter_shardings(abstract_boxes(config), mesh, SAMPLING_RULES)
            params = jax.lax.with_sharding_constraint(params, layout)
        return rollout(params, *inputs)

    return gathered
