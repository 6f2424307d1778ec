import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.training.checkpoint import Checkpointer
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.metrics import MetricWriter
from mmrpt_jax.training.skipping import NonFiniteError
from mmrpt_jax.training.state import apply_gradients, make_optimizer, new_state
from mmrpt_jax.training.stopping import StoppedError, StopRequest

OPTIMIZER = make_optimizer(learning_rate=0.1, steps=6, warmup=2, weight_decay=0.01)
# What the machine and the process decide, not the training.
CLOCK = ("seconds_per_step", "eta_seconds", "recompilations", "host_memory_bytes")


@jax.jit
def regress(state, batch):
    """One step of linear regression."""

    def loss(params):
        return jnp.mean((batch @ params["w"] - 1.0) ** 2)

    value, gradients = jax.value_and_grad(loss)(state.params)
    return apply_gradients(state, value, gradients, OPTIMIZER)[0], {"loss": value}


def open_batches(step):
    """An endless stream in which batch `n` depends on n alone."""
    return (np.random.default_rng(n).normal(size=(5, 3)).astype(np.float32) for n in itertools.count(step))


def run(workdir, batches=open_batches, step_fn=regress, **options):
    options = {"steps": 6, "log_every": 1, "save_every": 2, "log": lambda line: None, **options}
    with MetricWriter(workdir) as writer:
        return train(
            new_state({"w": jnp.zeros(3)}, OPTIMIZER),
            step_fn,
            batches,
            stage="regress",
            directory=workdir / "checkpoints",
            writer=writer,
            **options,
        )


def metrics_of(workdir):
    lines = read_jsonl(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def test_stopping_and_resuming_changes_no_bit(tmp_path):
    whole = run(tmp_path / "whole")

    class KilledError(Exception):
        pass

    def until_killed(step):
        # Steps 0 to 4 run; steps 3 and 4 are logged, step 4 is saved, step 5 is lost.
        yield from itertools.islice(open_batches(step), 5 - step)
        raise KilledError

    opened = []

    def recording(step):
        opened.append(step)
        return open_batches(step)

    with pytest.raises(KilledError):
        run(tmp_path / "parts", until_killed)
    assert [line["step"] for line in metrics_of(tmp_path / "parts")] == [1, 2, 3, 4, 5]
    parts = run(tmp_path / "parts", recording)
    assert opened == [4]
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")
    assert int(whole.step) == 6


def test_asked_to_stop_it_saves_the_step_and_goes_on_from_there(tmp_path, stop):
    def asked_in_step_two(state, batch):
        if int(state.step) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return regress(state, batch)

    with pytest.raises(StoppedError, match="regress: stopped after step 3 of 6, which is saved"):
        run(tmp_path / "parts", step_fn=asked_in_step_two, stop=stop)
    with Checkpointer(tmp_path / "parts" / "checkpoints") as checkpointer:
        assert checkpointer.latest == 3
    parts, whole = run(tmp_path / "parts"), run(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")


@pytest.fixture
def stop():
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    request.listen()
    yield request
    signal.signal(signal.SIGTERM, before)


def test_a_damaged_checkpoint_changes_no_bit(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", steps=4)
    (tmp_path / "parts" / "checkpoints" / "4" / "default" / "manifest.ocdbt").unlink()
    said = []
    parts = run(tmp_path / "parts", log=said.append)
    assert "4 is damaged" in said[0] and "goes on from step 2" in said[0]
    jax.tree.map(np.testing.assert_array_equal, parts, whole)
    assert metrics_of(tmp_path / "parts") == metrics_of(tmp_path / "whole")


def test_a_checkpoint_holds_what_moves_and_no_more(tmp_path):
    params = {"w": jnp.zeros(3), "base": jnp.arange(4.0)}

    def step(state, batch):
        moved, metrics = regress(state._replace(frozen=None), batch)
        return moved._replace(frozen=state.frozen), metrics

    def start(steps):
        state = new_state(params, OPTIMIZER, lambda path: path == "w")
        with MetricWriter(tmp_path) as writer:
            places = {"stage": "regress", "directory": tmp_path / "checkpoints", "writer": writer}
            return train(
                state, step, open_batches, steps=steps, save_every=2, log=lambda line: None, **places
            )

    start(2)
    resumed = start(4)
    assert resumed.params["base"] is params["base"]
    np.testing.assert_array_equal(resumed.params["w"], run(tmp_path / "whole", steps=4).params["w"])
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        held = checkpointer.restore(resumed._replace(frozen=None))
    assert held.frozen is None and held.trained.keys() == {"w"}


def test_lines_come_at_the_interval_and_at_the_end(tmp_path):
    lines = []
    run(tmp_path, steps=5, log_every=2, log=lines.append)
    assert [line["step"] for line in metrics_of(tmp_path)] == [2, 4, 5]
    assert [line.split(" | ")[:2] for line in lines] == [["   regress", f"step {n}/5"] for n in (2, 4, 5)]


def test_the_last_step_is_saved(tmp_path):
    state = run(tmp_path, steps=3, save_every=100)
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        assert checkpointer.latest == 3
        restored = checkpointer.restore(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_complete_stage_reads_nothing(tmp_path):
    state = run(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def closed(step):
        raise AssertionError("the data was opened")

    again = run(tmp_path, closed)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def poisoned(*bad):
    """The stream with NaN in the batches of the steps `bad`, counted from 1."""

    def open_at(step):
        return (batch * (np.nan if n in bad else 1) for n, batch in enumerate(open_batches(step), step + 1))

    return open_at


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path):
    state = run(tmp_path, poisoned(2, 3, 5), max_skipped=3)
    lines = metrics_of(tmp_path)
    assert [line["skipped"] for line in lines] == [0, 1, 2, 2, 3, 3]
    assert [line["loss"] is None for line in lines] == [False, True, True, False, True, False]
    # Batches 1, 4 and 6 are what was learned from.
    without = run(tmp_path / "without", lambda step: itertools.islice(chosen(0, 3, 5), step, None), steps=3)
    jax.tree.map(np.testing.assert_array_equal, state.params, without.params)
    assert int(state.step) == 6


def chosen(*steps):
    return (next(open_batches(step)) for step in steps)


def test_a_resumed_run_goes_on_counting(tmp_path):
    run(tmp_path, poisoned(2, 3), steps=3, save_every=1, max_skipped=3)
    with pytest.raises(NonFiniteError, match="in 3 updates in a row, up to step 4"):
        run(tmp_path, poisoned(4), max_skipped=3)


@pytest.mark.parametrize("log_every", [1, 2, 100])
def test_too_many_in_a_row_stop_before_they_are_saved(tmp_path, log_every):
    with pytest.raises(NonFiniteError, match=r"regress: .* look at steps 3 to 4.*open_batches\(2\)"):
        run(tmp_path, poisoned(3, 4, 5, 6), log_every=log_every, save_every=4, max_skipped=2)
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        assert checkpointer.latest is None
