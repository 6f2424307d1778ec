import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.stages.advantages import make_advantage, make_best_of_advantage, shuffled

REWARDS = np.array([[[1.0], [0.0], [0.0], [1.0]], [[0.9], [0.1], [0.1], [0.1]]], np.float32)
ONE = np.ones(1, np.float32)
VALID = np.ones(REWARDS.shape, bool)


def make(configured, *, min_std=1e-4, **options):
    config = ConfigDict({"combine": "sum_then_normalise", "scale": configured, "min_std": min_std})
    return make_advantage(config, **options)


def advantages(configured, **options):
    return np.asarray(make(configured, **options)(REWARDS, ONE, valid=VALID))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # Group means are 0.5 and 0.3; sample standard deviations √(1/3) and 0.4.
        ("group", [[0.5 * 3**0.5, -0.5 * 3**0.5], [1.5, -0.5]]),
        ("none", [[0.5, -0.5], [0.6, -0.2]]),
        # Against the mean of the other three.
        ("rloo", [[2 / 3, -2 / 3], [0.8, -0.8 / 3]]),
    ],
)
def test_advantages_as_configured(scale, expected):
    np.testing.assert_allclose(advantages(scale)[:, :2], expected, rtol=1e-4)
    np.testing.assert_allclose(advantages("batch", scale=scale)[:, :2], expected, rtol=1e-4)


def test_a_minimum_spread_mutes_noise():
    found = advantages("group", min_std=0.5)
    assert np.abs(found[0]).min() > 0.8
    assert not found[1].any()


def test_shuffled_credit_stays_in_its_group_and_says_nothing():
    rng, straight, crossed = np.random.default_rng(0), [], []
    advantage = make("none")
    for _ in range(200):
        rewards = rng.random(REWARDS.shape).astype(np.float32)
        plain, mixed = (np.asarray(a(rewards, ONE, valid=VALID)) for a in (advantage, shuffled(advantage)))
        np.testing.assert_allclose(np.sort(mixed, axis=1), np.sort(plain, axis=1), atol=1e-6)
        straight.append(plain)
        crossed.append(mixed)
    assert abs(np.corrcoef(np.ravel(straight), np.ravel(crossed))[0, 1]) < 0.1
    # The same rewards are shuffled alike.
    again = shuffled(make("none"))(rewards, ONE, valid=VALID)
    np.testing.assert_array_equal(again, mixed)


def test_the_best_are_imitated_where_there_is_a_best():
    rewards = np.float32([[0.2, 0.7, 0.1, 0.7], [0.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.9, 0.3]])[..., None]
    valid = np.ones(rewards.shape, bool)
    valid[2, 2] = False
    found = make_best_of_advantage()(rewards, ONE, valid=valid)
    # Two share the first; nobody is better than another in the second; the best of the third has no score.
    np.testing.assert_allclose(found, [[0, 2, 0, 2], [0, 0, 0, 0], [4, 0, 0, 0]])
