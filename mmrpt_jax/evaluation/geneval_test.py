import numpy as np
import pytest

from mmrpt_jax.evaluation import geneval
from mmrpt_jax.evaluation.geneval import drawing_scores, scene_drawing_prompts
from mmrpt_jax.scenes import TAGS, Clause, Clauses, Object, Scene, ScenePrompt, examine, render

CIRCLE = Object("circle", "red", "large", 16, 30)
SECOND = Object("circle", "red", "small", 48, 12)
SQUARE = Object("square", "blue", "small", 48, 50)
RED_CIRCLE = ScenePrompt("a red circle .", "colors", Clauses((Clause("circle", color="red"),)))
SQUARE_ALONE = ScenePrompt("a square .", "single_object", Clauses((Clause("square"),)))


def drawings(*groups):
    return np.stack([[render(Scene(objects)) for objects in group] for group in groups])


# Of red circles: one, two, none; of squares: one, one in the same place, none.
IMAGES = drawings([(CIRCLE,), (CIRCLE, SECOND), (SQUARE,)], [(SQUARE, CIRCLE), (SQUARE, CIRCLE), ()])


def test_scores_by_hand(monkeypatch):
    read = []
    monkeypatch.setattr(geneval, "examine", lambda image: read.append(1) or examine(image))
    images = IMAGES.copy()
    # Black is no colour: half of the last image is unexplained.
    images[1, 2, :32] = 0
    scores = drawing_scores([RED_CIRCLE, SQUARE_ALONE], images)
    assert scores == pytest.approx(
        {
            "strict": 2 / 3,
            "strict/colors": 2 / 3,
            "strict/single_object": 2 / 3,
            # Two circles are not one.
            "strict_exact": (1 / 3 + 2 / 3) / 2,
            # The second has neither the right number nor, with it, the right colour.
            "soft": (1 + 0 + 0 + 1 + 1 + 0) / 6,
            "validity": 5.5 / 6,
            "diversity": (3 / 3 + 2 / 3) / 2,
        }
    )
    assert len(read) == 6


def test_tags_weigh_the_same():
    scores = drawing_scores([RED_CIRCLE, RED_CIRCLE, SQUARE_ALONE], IMAGES[[0, 0, 1], :1])
    assert scores["strict"] == 1.0
    scores = drawing_scores([RED_CIRCLE, RED_CIRCLE, SQUARE_ALONE], IMAGES[[0, 0, 1], 2:])
    assert scores["strict"] == 0.0
    mixed = np.concatenate([IMAGES[:1, :1], IMAGES[:1, 2:], IMAGES[1:, :1]])
    assert drawing_scores([RED_CIRCLE, RED_CIRCLE, SQUARE_ALONE], mixed)["strict"] == (1 / 2 + 1) / 2


def test_groups_without_their_prompt_are_refused():
    with pytest.raises(ValueError, match="3 prompts for 6 images"):
        drawing_scores([RED_CIRCLE], IMAGES)


def test_prompts_have_all_tags_of_their_world():
    options = {"split": "test", "stream": 3}
    prompts = scene_drawing_prompts("unbiased", count=18, **options)
    assert [prompt.tag for prompt in prompts] == list(TAGS) * 3
    assert scene_drawing_prompts("unbiased", count=5, **options) == prompts[:5]
    assert [p.tag for p in scene_drawing_prompts("held_out", count=4, **options)] == [
        "colors",
        "color_attr",
    ] * 2
    with pytest.raises(KeyError, match="no world 'round'"):
        scene_drawing_prompts("round", count=1, **options)
