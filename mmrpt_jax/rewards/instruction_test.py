import numpy as np
import pytest

from mmrpt_jax.rewards.compose import score
from mmrpt_jax.rewards.instruction import (
    INSTRUCTION_REWARDS,
    image_validity,
    instruction_soft,
    instruction_strict,
)
from mmrpt_jax.rewards.kinds import by_task
from mmrpt_jax.scenes.clauses import TAGS, Clause, Clauses
from mmrpt_jax.scenes.prompts import prompt_at, scene_for
from mmrpt_jax.scenes.render import render
from mmrpt_jax.scenes.world import WORLDS, Object, Scene

CIRCLE = Object("circle", "red", "large", 16, 30)
SQUARE = Object("square", "blue", "small", 48, 30)
IMAGES = np.stack([render(Scene(objects)) for objects in ((CIRCLE,), (CIRCLE, SQUARE), (SQUARE,), ())])
RED_CIRCLE = Clauses((Clause("circle", color="red"),))
BLUE_CIRCLE = Clauses((Clause("circle", color="blue"),))


def test_both_grades_by_hand():
    np.testing.assert_array_equal(instruction_strict(IMAGES, [RED_CIRCLE] * 4), [1, 1, 0, 0])
    np.testing.assert_array_equal(instruction_soft(IMAGES, [RED_CIRCLE] * 4), [1, 1, 0, 0])
    # The number is right, the colour is not.
    np.testing.assert_array_equal(instruction_strict(IMAGES, [BLUE_CIRCLE] * 4), [0, 0, 0, 0])
    np.testing.assert_array_equal(instruction_soft(IMAGES, [BLUE_CIRCLE] * 4), [0.5, 0.5, 0, 0])
    assert instruction_strict(IMAGES, [RED_CIRCLE] * 4).dtype == np.float32


def test_crowding_does_not_pay():
    two = render(Scene((CIRCLE, Object("circle", "red", "small", 48, 50))))[None]
    assert instruction_strict(two, [RED_CIRCLE]) == 0
    assert instruction_strict(two, [RED_CIRCLE], exact=False) == 1


def test_validity_by_hand():
    black = np.zeros((64, 64, 3), np.uint8)
    half = IMAGES[3].copy()
    half[:32] = 0
    np.testing.assert_allclose(image_validity([*IMAGES, black, half]), [1, 1, 1, 1, 0, 0.5])


def test_own_pictures_earn_all_and_those_of_other_prompts_next_to_nothing():
    world = WORLDS["unbiased"]
    prompts = [prompt_at(world, tag, 1, i) for i in range(16) for tag in TAGS]
    images = [render(scene_for(prompt, world, 1, i)) for i, prompt in enumerate(prompts)]
    clauses = [prompt.clauses for prompt in prompts]
    assert instruction_strict(images, clauses).mean() == 1.0
    assert instruction_soft(images, clauses).mean() == 1.0
    shuffled = [clauses[i] for i in np.random.default_rng(0).permutation(len(clauses))]
    assert instruction_strict(images, shuffled).mean() < 0.1
    assert instruction_soft(images, shuffled).mean() < 0.4


def test_they_take_a_mixed_batch():
    rewards = {reward.name: (by_task(reward), 1.0) for reward in INSTRUCTION_REWARDS}
    table = score(
        rewards,
        prompts=["p"] * 2,
        completions=["", "an answer"],
        columns={
            "task": ["generation", "understanding"],
            "images": [IMAGES[0], None],
            "clauses": [RED_CIRCLE, None],
        },
        gate=None,
    )
    np.testing.assert_allclose(table.total, [3.0, 0.0])
    assert table.scorable.tolist() == [True, False]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="4 images came with 1 sets of clauses"):
        instruction_strict(IMAGES, [RED_CIRCLE])
    with pytest.raises(ValueError, match="Expected uint8"):
        instruction_soft(IMAGES[:1].astype(np.float32), [RED_CIRCLE])
    with pytest.raises(ValueError, match="Expected uint8"):
        image_validity(IMAGES[:, :32])
