import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmrpt_jax.training.joint import Task, gradient_cosine, make_joint_step
from mmrpt_jax.training.state import new_state

PARAMS = {"w": jnp.array([1.0, -2.0])}
X, Y = np.float32([[1, 0], [0, 2], [3, 1], [1, 1]]), np.float32([[2, 2], [0, 1]])
DESCENT = optax.sgd(1.0)


def linear(params, batch):
    """Mean of w·x: its gradient is the mean of x."""
    values = batch @ params["w"]
    count = jnp.float32(len(batch))
    return values.sum(), (count, {"largest": (values.max() * count, count)})


def run(batches, **weights):
    tasks = {name: Task(linear, weight, micro_batches=2) for name, weight in weights.items()}
    step = jax.jit(make_joint_step(tasks, DESCENT))
    return step(new_state(PARAMS, DESCENT), batches)


def test_every_task_has_its_own_mean():
    state, metrics = run({"a": X, "b": Y}, a=1.0, b=0.5)
    # Means of x: (5/4, 1) and (1, 3/2); w·x of them: -3/4 and -2.
    np.testing.assert_allclose(state.params["w"], [1 - 1.25 - 0.5, -2 - 1 - 0.75], rtol=1e-6)
    np.testing.assert_allclose(metrics["a/loss"], -0.75)
    np.testing.assert_allclose(metrics["b/loss"], -2.0)
    np.testing.assert_allclose(metrics["loss"], -0.75 - 0.5 * 2)
    np.testing.assert_allclose(metrics["gradient_norm"], np.hypot(1.75, 1.75), rtol=1e-6)
    cosine = (1.25 * 1 + 1 * 1.5) / (np.hypot(1.25, 1) * np.hypot(1, 1.5))
    np.testing.assert_allclose(metrics["gradient_cosine/a:b"], cosine, rtol=1e-6)
    assert int(state.step) == 1


def test_a_task_without_a_batch_rests():
    state, metrics = run({"b": Y}, a=1.0, b=2.0)
    np.testing.assert_allclose(state.params["w"], [1 - 2, -2 - 3], rtol=1e-6)
    assert metrics.keys() == {"b/loss", "b/largest", "loss", "gradient_norm"}


@pytest.mark.parametrize(
    ("b", "cosine"), [([2.0, 0], 1.0), ([-1.0, 0], -1.0), ([0, 3.0], 0.0), ([0.0, 0], 0.0)]
)
def test_cosine_by_hand(b, cosine):
    assert gradient_cosine({"w": jnp.array([3.0, 0])}, {"w": jnp.array(b)}) == pytest.approx(cosine)
