import dataclasses
import functools

import jax
import numpy as np
import pytest

from mmrpt_jax.objectives import group_advantages, sum_then_normalise
from mmrpt_jax.sampling import Conditions, ImageRollout
from mmrpt_jax.training.drawings import Drawing, DrawingPrompts, collect_drawings, judge_images

B, G, I, C, K = 3, 4, 2, 1, 2
BATCH = DrawingPrompts(
    conditions=Conditions(prompt=np.arange(B)[:, None]),
    texts=["one", "two", "three"],
    columns={"tag": ["a", "b", "c"]},
    seeds=np.array([7, 8, 9], np.int32),
)
ADVANTAGE = functools.partial(sum_then_normalise, advantage_fn=functools.partial(group_advantages, eps=0.0))
EARNED = np.float32([[1, 0, 1, 0], [5, 5, 5, 5], [1, 0, 0, 0]])
# First group: mean 1/2, std √(1/3); last: mean 1/4, std 1/2. The second has nothing to tell.
FIRST = 0.5 * 3**0.5
ADVANTAGES = [[FIRST, -FIRST, FIRST, -FIRST], [0.0] * 4, [1.5, -0.5, -0.5, -0.5]]


def rollout_of(latents):
    """As if drawn; every number of it says where it belongs."""
    places = np.arange(B * G, dtype=np.float32).reshape(B, G)
    path = np.broadcast_to(places[..., None, None, None], (B, G, K + 1, I, C))
    rows = np.arange(B, dtype=np.float32)[:, None]
    latents = np.broadcast_to(latents[..., None, None], (B, G, I, C))
    return ImageRollout(
        latents, path, rows + np.linspace(1, 0, K + 1), rows + np.ones(K), path[:, :, :K, 0, 0]
    )


def decode(latents):
    """Images of one pixel that shows ten times the latent."""
    return np.broadcast_to(10 * latents[:, :, :1, :, None], (*latents.shape[:2], 1, 1, 3)).astype(np.uint8)


def brightness(images, **columns):
    return [image[0, 0, 0] / 10 for image in images]


@pytest.fixture
def parts():
    return Drawing(
        rollout=lambda *_: rollout_of(EARNED),
        decode=decode,
        rewards={"brightness": (brightness, 1.0)},
        advantage=ADVANTAGE,
        group_size=G,
    )


def collect(parts, step=0):
    return collect_drawings(parts, "params", BATCH, jax.random.key(0), step)


def test_rewards_see_images_and_repeated_columns(parts):
    seen = {}

    def reward(**batch):
        seen.update(batch)
        return [0.0] * B * G

    def more(params, batch, images):
        return {
            "extra": [f"{params} {batch.texts[i // G]} {image[0, 0, 0]}" for i, image in enumerate(images)]
        }

    parts = dataclasses.replace(parts, rewards={"spy": (reward, 1.0)}, more_columns=more)
    judged = judge_images(parts, "params", BATCH, jax.random.key(0))
    values = (10 * EARNED.ravel()).astype(int)
    images = np.stack(seen.pop("images"))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, np.broadcast_to(values[:, None, None, None], (B * G, 1, 1, 3)))
    np.testing.assert_array_equal(judged.images, images.reshape(B, G, 1, 1, 3))
    texts = ["one"] * 4 + ["two"] * 4 + ["three"] * 4
    assert seen == {
        "prompts": texts,
        "completions": [""] * 12,
        "tag": ["a"] * 4 + ["b"] * 4 + ["c"] * 4,
        "extra": [f"params {text} {value}" for text, value in zip(texts, values, strict=True)],
    }


def test_what_was_drawn_is_to_be_learned_from(parts):
    asked, judged = [], []

    def rollout(*given):
        asked.append(given)
        return rollout_of(EARNED)

    parts = dataclasses.replace(
        parts, rollout=rollout, on_judged=lambda step, found: judged.append((step, found.images.shape))
    )
    batch, _ = collect(parts, step=7)
    ((params, conditions, key),) = asked
    assert params == "params" and conditions is BATCH.conditions
    assert jax.random.key_data(key).tolist() == jax.random.key_data(jax.random.key(0)).tolist()
    jax.tree.map(np.testing.assert_array_equal, batch.rollout, rollout_of(EARNED))
    np.testing.assert_array_equal(batch.conditions.prompt, BATCH.conditions.prompt)
    np.testing.assert_array_equal(batch.seeds, BATCH.seeds)
    np.testing.assert_array_equal(batch.rewards, EARNED)
    np.testing.assert_allclose(batch.advantages, ADVANTAGES, rtol=1e-6)
    assert batch.ref_velocity is None and batch.behaviour_velocity is None
    assert judged == [(7, (3, 4, 1, 1, 3))]


@pytest.mark.parametrize("drop", [True, False])
def test_groups_that_tell_nothing_may_leave_the_loss(parts, drop):
    batch, metrics = collect(dataclasses.replace(parts, drop_zero_variance=drop))
    np.testing.assert_array_equal(batch.trained, [[True] * G, [not drop] * G, [True] * G])
    assert metrics["zero_variance_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("keep", "chosen"), [(1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (None, [0, 1, 2])])
def test_groups_that_tell_nothing_are_passed_over(parts, keep, chosen):
    asked = []

    def ref_velocity(conditions, rollout, seeds):
        asked.append((conditions, rollout, seeds))
        return np.full((len(seeds), G, K, I, C), 0.25)

    def behaviour_velocity(params, *seen):
        assert params == "params"
        return ref_velocity(*seen) + 1

    velocities = {"ref_velocity": ref_velocity, "behaviour_velocity": behaviour_velocity}
    batch, metrics = collect(dataclasses.replace(parts, keep=keep, **velocities))
    # The reference, and the policy that sampled, are run behind what is learned from, and nothing else.
    (conditions, rollout, seeds), again = asked
    assert all(a is b for a, b in zip((conditions, rollout, seeds), again, strict=True))
    assert (batch.behaviour_velocity == 1.25).all()
    for found in (conditions, batch.conditions):
        np.testing.assert_array_equal(found.prompt, BATCH.conditions.prompt[chosen])
    for found in (rollout, batch.rollout):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[chosen]), found, rollout_of(EARNED))
    for found in (seeds, batch.seeds):
        np.testing.assert_array_equal(found, BATCH.seeds[chosen])
    assert batch.ref_velocity.shape == (len(chosen), G, K, I, C) and (batch.ref_velocity == 0.25).all()
    np.testing.assert_array_equal(batch.rewards, EARNED[chosen])
    np.testing.assert_allclose(batch.advantages, np.array(ADVANTAGES)[chosen], rtol=1e-6)
    np.testing.assert_array_equal(
        batch.trained, np.broadcast_to(np.array(chosen)[:, None] != 1, batch.trained.shape)
    )
    # What is reported is of all that was drawn.
    assert metrics["reward"] == pytest.approx(EARNED.mean())


def test_images_that_no_reward_can_score_leave_the_loss(parts):
    def unsure(images, **columns):
        return [None if place in (1, 8) else float(image[0, 0, 0] / 10) for place, image in enumerate(images)]

    batch, metrics = collect(dataclasses.replace(parts, rewards={"unsure": (unsure, 1.0)}))
    # Left of the first group are 1, 1, 0: mean 2/3, std √(1/3). Left of the last: three that are alike.
    third = 3**-0.5
    expected = [[third, 0, third, -2 * third], [0] * 4, [0] * 4]
    np.testing.assert_allclose(batch.advantages, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(batch.trained, [[True, False, True, True], [False] * 4, [False] * 4])
    assert metrics["zero_variance_share"] == pytest.approx(2 / 3)
    assert metrics["reward/unsure"] == metrics["reward"] == pytest.approx(22 / 10)


def test_a_batch_that_no_reward_can_score(parts):
    batch, metrics = collect(dataclasses.replace(parts, rewards={"never": (lambda **_: [None] * 12, 1.0)}))
    assert not batch.trained.any() and not batch.advantages.any()
    assert metrics == {"reward": 0.0, "zero_variance_share": 1.0}


def test_metrics_by_hand(parts):
    def against(images, **columns):
        """What the brighter image of the last group lacks; says nothing of the first two groups."""
        return [None] * 8 + [1.0 - image[0, 0, 0] / 10 for image in images[8:]]

    rewards = {
        "brightness": (brightness, 1.0),
        "against": (against, 0.5),
        "flat": (lambda images, **columns: [0.25] * len(images), 1.0),
        "never": (lambda images, **columns: [None] * len(images), 1.0),
    }
    _, metrics = collect(dataclasses.replace(parts, rewards=rewards))
    # The totals vary as before, but by half as much in the last group: the same advantages. They sum to 0, their
    # squares to 3 in each group that varies.
    sum_of_squares = 3 + 4 * 25 - 23**2 / 12
    expected = {
        "reward/brightness": 23 / 12,
        "reward/against": 3 / 4,
        "reward/flat": 1 / 4,
        "reward": (23 + 0.5 * 3 + 12 * 0.25) / 12,
        "zero_variance_share": 1 / 3,
        "reward_std/brightness": (sum_of_squares / 12) ** 0.5,
        "reward_std/against": (3 / 16) ** 0.5,
        "reward_std/flat": 0.0,
        "reward_advantage/brightness": (2 * FIRST + 1.5) / (sum_of_squares * 6) ** 0.5,
        "reward_advantage/against": -1.0,
        "reward_advantage/flat": 0.0,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_images_of_all_parts_are_compared_together(parts):
    happened = []

    def rollout(params, conditions, key):
        (row,) = conditions.prompt[:, 0].tolist()
        happened.append(f"draw {row}")
        return jax.tree.map(lambda array: array[row : row + 1], rollout_of(EARNED))

    def reward(images, tag, **columns):
        happened.append(f"reward {tag[0]}")
        return brightness(images)

    seen = []
    parts = dataclasses.replace(
        parts,
        rollout=rollout,
        rollout_parts=3,
        rewards={"brightness": (reward, 1.0)},
        on_judged=lambda step, judged: seen.append(judged.images[..., 0, 0, 0]),
    )
    batch, metrics = collect(parts)
    assert happened == ["draw 0", "draw 1", "reward a", "draw 2", "reward b", "reward c"]
    jax.tree.map(np.testing.assert_array_equal, batch.rollout, rollout_of(EARNED))
    np.testing.assert_array_equal(batch.rewards, EARNED)
    np.testing.assert_allclose(batch.advantages, ADVANTAGES, rtol=1e-6)
    np.testing.assert_array_equal(seen, [10 * EARNED])
    assert metrics["reward"] == pytest.approx(EARNED.mean())
