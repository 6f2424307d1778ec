"""One step of reinforcement: collect what the policy does and what it earns, then learn from it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Key

from mmrpt_jax.rewards import RewardError
from mmrpt_jax.training.state import TrainState

# (params, batch, key, step) -> (what to learn from, metrics); runs on the host, around compiled rollouts
Collector = Callable[[Any, Any, Key[Array, ""], int], tuple[Any, dict[str, float]]]


def make_reinforcement_step(
    collect: Collector,
    update: Callable[[TrainState, Any], tuple[TrainState, dict]],
    key: Key[Array, ""],
    *,
    updates: int = 1,
) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """Builds `step(state, batch) -> (state, metrics)`; what is sampled at step n depends on (key, n) alone.

    Args:
        collect: samples from the policy and judges.
        update: (state, what was collected) -> (state, metrics), compiled.
        key: of the sampling.
        updates: optimizer steps on what was collected once.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        number = int(state.step)
        try:
            learned, found = collect(state.params, batch, jax.random.fold_in(key, number), number)
        except RewardError as error:
            error.add_note(f"in step {number + 1}")
            raise
        metrics: dict = {}
        for _ in range(updates):
            state, metrics = update(state, learned)
        # One step of the loop is one rollout, however many optimizer steps it feeds. Left as the update placed it where
        # there is nothing to take back: a scalar placed otherwise would compile the update a second time.
        if updates > 1:
            state = state._replace(step=state.step - (updates - 1))
        return state, metrics | found

    return step


def together(collectors: Mapping[str, Collector]) -> Collector:
    """One collector of several tasks, for `joint.make_joint_step`: batches and results come by task name.

    Metrics are `<task>/<metric>`. The keys of the tasks are their own, whichever tasks take part.
    """
    places = {name: place for place, name in enumerate(sorted(collectors))}

    def collect(
        params, batches: Mapping[str, Any], key, step: int
    ) -> tuple[dict[str, Any], dict[str, float]]:
        learned, metrics = {}, {}
        for name, batch in batches.items():
            task_key = jax.random.fold_in(key, places[name])
            learned[name], found = collectors[name](params, batch, task_key, step)
            metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
        return learned, metrics

    return collect
