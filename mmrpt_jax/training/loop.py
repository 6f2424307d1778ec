"""The loop. Saves before it reads, so that a checkpoint and the data that follow it always belong together."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mmrpt_jax.training.checkpoint import Checkpointer
from mmrpt_jax.training.compilations import compilations
from mmrpt_jax.training.metrics import MetricWriter, format_health, host_memory_bytes
from mmrpt_jax.training.skipping import too_many_skipped
from mmrpt_jax.training.state import TrainState
from mmrpt_jax.training.stopping import NEVER, StoppedError, StopRequest

StepFn = Callable[[TrainState, Any], tuple[TrainState, dict]]


def train(
    state: TrainState,
    step_fn: StepFn,
    open_batches: Callable[[int], Iterator[Any]],
    *,
    steps: int,
    stage: str,
    directory: str | os.PathLike[str],
    writer: MetricWriter,
    log_every: int = 20,
    save_every: int = 200,
    max_skipped: int = 10,
    updates_per_step: int = 1,
    stop: StopRequest = NEVER,
    log: Callable[[str], None] = print,
) -> TrainState:
    """Runs `step_fn` until `steps`, from the newest sound checkpoint in `directory` if there is one.

    Args:
        state: where to begin; gives shapes, shardings and what is frozen when a checkpoint is restored.
        step_fn: (state, batch) -> (state, scalar metrics).
        open_batches: step -> iterator whose first batch is that of `step`; batches are a pure function of the step.
        steps: optimizer steps in total.
        stage: name in metrics and logs.
        directory: holds the checkpoints.
        writer: receives the metrics.
        log_every: steps between log lines.
        save_every: steps between checkpoints; the last step is always saved.
        max_skipped: so many updates in a row whose loss or gradient is not finite end the training; it is looked at
            where something is logged or saved.
        updates_per_step: that `step_fn` makes of a batch.
        stop: is asked after every step; a request to stop waits for the step's end and is followed by a checkpoint.
        log: receives one health line per logged step.

    Raises:
        NonFiniteError: `max_skipped` was reached; names the steps and, where they are known, their examples.
        StoppedError: `stop` asked for it; the step is saved.
    """
    with stop.deferred(), Checkpointer(directory) as checkpointer:
        saved = checkpointer.restore_newest_sound(_moving(state), log)
        if saved is not None:
            state = saved._replace(frozen=state.frozen)
        begin = step = int(state.step)
        if step >= steps:
            return state
        writer.rewind(stage, step)
        batches, clock = open_batches(step), _Clock(begin, steps)
        while step < steps:
            state, metrics = step_fn(state, next(batches))
            step += 1
            stopping = stop.heard()
            logging, saving = (step % every == 0 or step == steps for every in (log_every, save_every))
            saving = saving or stopping
            if logging or saving:
                values, in_a_row = _fetch(metrics, state)
                if in_a_row >= max_skipped:
                    raise too_many_skipped(
                        stage, step, in_a_row, open_batches, updates_per_step=updates_per_step
                    )
            if logging:
                values |= clock.read(step)
                writer.write(stage, step, values)
                log(f"   {stage} | {format_health({'step': step, 'total_steps': steps, **values})}")
            if saving:
                checkpointer.save(step, _moving(state))
            if stopping:
                raise StoppedError(
                    f"{stage}: stopped after step {step} of {steps}, which is saved; "
                    "the same command goes on from there"
                )
        return state


def _moving(state: TrainState) -> TrainState:
    """What a checkpoint holds; what is frozen is where the stage began, and is read from there."""
    return state._replace(frozen=None)


def _fetch(metrics: dict, state: TrainState) -> tuple[dict[str, float], int]:
    """Metrics of a step with the updates skipped so far, and how many of them in a row until now."""
    found, skipped = jax.device_get((metrics, state.skipped))
    values = {name: float(value) for name, value in found.items()}
    return values | {"skipped": float(skipped.total)}, int(skipped.in_a_row)


class _Clock:
    """What happened since the last reading: seconds per step, seconds to go, programs compiled."""

    def __init__(self, step: int, steps: int):
        self._step, self._steps, self._time, self._compiled = step, steps, time.monotonic(), compilations()

    def read(self, step: int) -> dict[str, float]:
        now, compiled = time.monotonic(), compilations()
        per_step = (now - self._time) / max(step - self._step, 1)
        news = {
            "seconds_per_step": per_step,
            "eta_seconds": per_step * (self._steps - step),
            "recompilations": compiled - self._compiled,
            "host_memory_bytes": host_memory_bytes(),
        }
        self._step, self._time, self._compiled = step, now, compiled
        return news
