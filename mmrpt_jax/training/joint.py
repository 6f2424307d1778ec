"""Several tasks, one update: each has its own batch, loss and normaliser, and their mean gradients are added."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mmrpt_jax.training.accumulate import LossFn, accumulate_gradients
from mmrpt_jax.training.state import TrainState, apply_gradients


class Task(NamedTuple):
    """One of the things that an update learns from.

    Attributes:
        loss: (params, batch) -> (sum, (count, metrics)), as `accumulate_gradients` takes it.
        weight: multiplies the task's mean loss.
        micro_batches: parts of its batch; does not change the result.
    """

    loss: LossFn
    weight: float = 1.0
    micro_batches: int = 1


def make_joint_step(
    tasks: Mapping[str, Task], optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, dict]]:
    """Builds `step(state, batches) -> (state, metrics)` for `loss = Σ_k w_k · (Σ losses_k / Σ counts_k)`.

    Batches come by task name; a batch that is missing leaves its task out of that step. Metrics are `<task>/<metric>`,
    the weighted `loss`, and, where two tasks or more take part, `gradient_cosine/<a>:<b>` between their gradients.
    """

    def step(state: TrainState, batches: Mapping[str, Any]) -> tuple[TrainState, dict]:
        gradients, metrics = {}, {}
        for name in batches:
            task = tasks[name]
            gradients[name], found = accumulate_gradients(
                task.loss,
                state.trained,
                batches[name],
                frozen=state.frozen,
                micro_batches=task.micro_batches,
            )
            metrics |= {f"{name}/{key}": value for key, value in found.items()}
        metrics["loss"] = sum(tasks[name].weight * metrics[f"{name}/loss"] for name in batches)
        metrics |= _cosines(gradients)
        weighted = [jax.tree.map(lambda g, w=tasks[name].weight: w * g, gradients[name]) for name in batches]
        added = jax.tree.map(lambda *parts: sum(parts), *weighted)
        state, norm = apply_gradients(state, metrics["loss"], added, optimizer)
        return state, metrics | {"gradient_norm": norm}

    return step


def gradient_cosine(a: Any, b: Any) -> Float[Array, ""]:
    """cos of the angle between two trees of gradients, in [-1, 1]; 0 where one of them is 0."""
    product = optax.tree.vdot(a, b)
    norms = optax.tree.norm(a) * optax.tree.norm(b)
    return jnp.where(norms > 0, product / jnp.where(norms > 0, norms, 1.0), 0.0)


def _cosines(gradients: Mapping[str, Any]) -> dict[str, Float[Array, ""]]:
    names = list(gradients)
    return {
        f"gradient_cosine/{a}:{b}": gradient_cosine(gradients[a], gradients[b])
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    }
