import jax
import numpy as np
import pytest

from mmrpt_jax.rewards import RewardError
from mmrpt_jax.training.reinforce import make_reinforcement_step, together
from mmrpt_jax.training.state import Skipped, TrainState


class Collected:
    """Stands for a collector: hands on the batch and the parameters, and keeps the keys that it was given."""

    def __init__(self):
        self.keys = []

    def __call__(self, params, batch, key, step):
        self.keys.append(tuple(jax.random.key_data(key).tolist()))
        return (params, batch), {"reward": float(step)}


def update(state, learned):
    return state._replace(step=state.step + 1, trained=state.trained + 1), {"loss": 0.5, "learned": learned}


def state_at(step):
    return TrainState(np.int32(step), 10, (), Skipped(0, 0))


def test_every_update_learns_from_what_was_collected_once():
    collect = Collected()
    state, metrics = make_reinforcement_step(collect, update, jax.random.key(0), updates=3)(
        state_at(7), "batch"
    )
    # Three optimizer steps, one step of the loop.
    assert (int(state.step), state.params, len(collect.keys)) == (8, 13, 1)
    assert metrics == {"loss": 0.5, "learned": (10, "batch"), "reward": 7.0}


def test_sampling_depends_on_key_and_step_alone():
    collect = Collected()
    step, state = make_reinforcement_step(collect, update, jax.random.key(9)), state_at(0)
    for _ in range(3):
        state, _ = step(state, None)
    # Another process that resumes at step 2, and another key.
    make_reinforcement_step(collect, update, jax.random.key(9))(state_at(2), None)
    make_reinforcement_step(collect, update, jax.random.key(8))(state_at(2), None)
    assert collect.keys[2] == collect.keys[3]
    assert len(set(collect.keys)) == 4


def test_a_reward_at_fault_is_named_with_its_step():
    def collect(params, batch, key, step):
        raise RewardError("slow", "did not return within 5 s")

    with pytest.raises(RewardError, match="reward 'slow'") as caught:
        make_reinforcement_step(collect, update, jax.random.key(0))(state_at(6), "batch")
    assert caught.value.__notes__ == ["in step 7"]


def test_tasks_together_and_apart():
    a, b = Collected(), Collected()
    both = together({"a": a, "b": b})
    learned, metrics = both("params", {"b": 1, "a": 2}, jax.random.key(0), 4)
    assert learned == {"a": ("params", 2), "b": ("params", 1)}
    assert metrics == {"a/reward": 4.0, "b/reward": 4.0}
    # A task alone draws as it does in company, and no two tasks draw alike.
    both("params", {"b": 1}, jax.random.key(0), 4)
    assert b.keys[0] == b.keys[1] != a.keys[0]
