import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrpt_jax.rewards.visual_gain import visual_gain, visual_gain_reward

WITH_IMAGE = jnp.log(jnp.array([0.5, 0.5, 0.9]))
WITHOUT_IMAGE = jnp.log(jnp.array([0.25, 0.125, 0.1]))
MASK = jnp.array([True, True, False])


def test_mean_log_ratio_over_the_span():
    # (log 2 + log 4) / 2 = 1.5 log 2 nats per token, of a cap of 3 log 2.
    gain = visual_gain(WITH_IMAGE, WITHOUT_IMAGE, MASK, cap=3 * np.log(2))
    assert gain == pytest.approx(0.5, rel=1e-6)


def test_sign():
    swapped = {"cap": 3 * np.log(2)}
    assert visual_gain(WITHOUT_IMAGE, WITH_IMAGE, MASK, **swapped) == 0.0
    assert visual_gain(WITHOUT_IMAGE, WITH_IMAGE, MASK, signed=True, **swapped) == pytest.approx(
        -0.5, rel=1e-6
    )


def test_positions_outside_the_span_do_not_matter():
    garbage = jnp.array([0.0, 0.0, jnp.nan])
    gain = visual_gain(WITH_IMAGE + garbage, WITHOUT_IMAGE - jnp.array([0.0, 0.0, jnp.inf]), MASK)
    assert gain == visual_gain(WITH_IMAGE, WITHOUT_IMAGE, MASK) > 0


def test_an_empty_span_gains_nothing():
    assert visual_gain(WITH_IMAGE, WITHOUT_IMAGE, jnp.zeros(3, bool)) == 0.0


_LOGPROBS = st.lists(st.floats(-1e4, 0.0, width=32), min_size=4, max_size=4).map(jnp.array)


@settings(deadline=None)  # the first call compiles
@given(_LOGPROBS, _LOGPROBS, st.floats(0.125, 100.0, width=32), st.booleans())
def test_bounds(with_image, without_image, cap, signed):
    gain = visual_gain(with_image, without_image, jnp.ones(4, bool), cap=cap, signed=signed)
    assert (-1.0 if signed else 0.0) <= gain <= 1.0


def test_every_transform_agrees_with_a_loop():
    keys = jax.random.split(jax.random.key(0), 3)
    with_image, without_image = (-jax.random.exponential(key, (2, 3, 5)) for key in keys[:2])
    mask = jax.random.bernoulli(keys[2], 0.5, (2, 3, 5))
    expected = np.zeros((2, 3))
    for index in np.ndindex(2, 3):
        span = np.asarray(mask[index])
        ratio = np.asarray(with_image[index] - without_image[index])[span].mean() if span.any() else 0.0
        expected[index] = np.clip(ratio / 3.0, 0.0, 1.0)
    batched = jax.jit(visual_gain)(with_image, without_image, mask)
    np.testing.assert_allclose(batched, expected, atol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.vmap(visual_gain))(with_image, without_image, mask), expected, atol=1e-6
    )
    with_axis = (with_image[None], without_image[None], mask[None])
    np.testing.assert_allclose(jax.pmap(visual_gain)(*with_axis)[0], expected, atol=1e-6)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    sharded = jax.shard_map(visual_gain, mesh=mesh, in_specs=rows, out_specs=rows)
    np.testing.assert_allclose(sharded(with_image, without_image, mask), expected, atol=1e-6)


def test_reward_is_gated_by_format():
    completions = ["<think>t</think><answer>red</answer>", "red", "red"]
    assert visual_gain_reward([""] * 3, completions, visual_gain=[0.7, 0.7, None]) == [0.7, 0.0, None]


@pytest.mark.parametrize("value", [1.5, -2.0, float("nan")])
def test_reward_refuses_an_unbounded_column(value):
    with pytest.raises(ValueError, match=r"visual_gain\[0\]"):
        visual_gain_reward([""], ["red"], visual_gain=[value])
