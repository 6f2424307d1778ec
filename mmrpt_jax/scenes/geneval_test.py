import pytest

from mmrpt_jax.scenes.caption_clauses import clauses_of_caption
from mmrpt_jax.scenes.captions import describe
from mmrpt_jax.scenes.clauses import Clause, Clauses, ScenePrompt
from mmrpt_jax.scenes.geneval import (
    caption_accuracy,
    clause_agreement,
    clauses_of_scene,
    diversity,
    geneval_scores,
    layout,
)
from mmrpt_jax.scenes.world import WORLDS, Object, Scene, sample_scene

CIRCLE = Object("circle", "red", "small", 10, 30)
SQUARE = Object("square", "blue", "large", 50, 30)
SCENE = Scene((CIRCLE, SQUARE))
RED_CIRCLE, BLUE_CIRCLE = Clause("circle", color="red"), Clause("circle", color="blue")


def test_tags_weigh_the_same():
    single = ScenePrompt("…", "single_object", Clauses((Clause("circle"),)))
    counting = ScenePrompt("…", "counting", Clauses((Clause("circle", 2),), (Clause("circle", 3),)))
    shown = [SCENE, SCENE, Scene(()), SCENE, Scene((CIRCLE, CIRCLE))]
    scores = geneval_scores([single, single, single, counting, single], shown)
    assert scores.by_tag == pytest.approx({"single_object": 3 / 4, "counting": 0.0})
    assert scores.overall == pytest.approx(3 / 8)
    assert geneval_scores([single, single], shown[3:], exact=True).overall == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="one prompt per image"):
        geneval_scores([single], shown)
    with pytest.raises(ValueError, match="0 prompts"):
        geneval_scores([], [])


def test_layouts_are_alike_within_a_cell_of_the_grid():
    moved = Scene((SQUARE, Object("circle", "red", "large", 15, 17)))
    across = Scene((SQUARE, Object("circle", "red", "small", 16, 30)))
    assert layout(SCENE) == layout(moved) == (("circle", "red", 0, 1), ("square", "blue", 3, 1))
    assert layout(SCENE) != layout(across)
    assert diversity([SCENE, moved, across, SCENE]) == pytest.approx(2 / 4)
    assert diversity([SCENE, moved], cell=4) == 1.0
    assert diversity([Scene(())] * 8) == 1 / 8
    with pytest.raises(ValueError, match="empty"):
        diversity([])


def test_clauses_of_a_scene():
    scene = Scene((CIRCLE, SQUARE, Object("circle", "red", "large", 30, 50)))
    assert set(clauses_of_scene(scene).include) == {Clause("circle", 2, "red"), Clause("square", 1, "blue")}


@pytest.mark.parametrize(
    ("found", "truth", "precision", "recall"),
    [
        ([RED_CIRCLE], [RED_CIRCLE], 1, 1),
        ([RED_CIRCLE], [BLUE_CIRCLE], 0, 0),
        ([RED_CIRCLE, Clause("cross")], [RED_CIRCLE, BLUE_CIRCLE, Clause("square")], 1 / 2, 1 / 3),
        # A red circle is a circle, not the other way round.
        ([RED_CIRCLE], [Clause("circle")], 0, 1),
        ([Clause("circle")], [RED_CIRCLE], 1, 0),
        # A red and a blue circle are two circles; a circle and a red circle may be one.
        ([Clause("circle", 2)], [RED_CIRCLE, BLUE_CIRCLE], 1, 0),
        ([Clause("circle", 2)], [RED_CIRCLE, Clause("circle")], 0, 1 / 2),
        ([Clause("circle", 2, "red")], [Clause("circle", 3, "red")], 1, 0),
        ([], [], 1, 1),
        ([], [RED_CIRCLE], 0, 0),
    ],
)
def test_agreement_by_hand(found, truth, precision, recall):
    agreement = clause_agreement(Clauses(tuple(found)), Clauses(tuple(truth)))
    assert agreement[:2] == pytest.approx((precision, recall))
    total = precision + recall
    assert agreement.f1 == pytest.approx(2 * precision * recall / total if total else 0)
    back = clause_agreement(Clauses(tuple(truth)), Clauses(tuple(found)))
    assert back == pytest.approx((recall, precision, agreement.f1))


def test_agreement_of_relations():
    left = Clauses((Clause("square"), Clause("circle", relation=("left", 0))))
    right = Clauses((RED_CIRCLE, Clause("square", relation=("right", 0))))
    # "A square right of a red circle" implies "a circle left of a square"; in return nothing is known to be red.
    assert clause_agreement(right, left)[:2] == (0, 1)
    plain = Clauses((Clause("circle"), Clause("square", relation=("right", 0))))
    assert clause_agreement(plain, left) == (1, 1, 1)
    assert (
        clause_agreement(Clauses((Clause("square"), Clause("circle", relation=("above", 0)))), left)[0] == 0.5
    )
    # What is silent about places is not compared by them.
    assert clause_agreement(Clauses((Clause("square"),)), left) == (1, 1, 1)


def test_captions_of_a_scene_are_accurate_and_those_of_another_are_not():
    scenes = [sample_scene(WORLDS["unbiased"], 3, i) for i in range(120)]
    texts = [describe(scene, 3, i).text for i, scene in enumerate(scenes)]
    own = [caption_accuracy(text, scene.objects) for text, scene in zip(texts, scenes, strict=True)]
    assert set(own) <= {1.0, None}
    others = [caption_accuracy(text, scenes[i - 1].objects) for i, text in enumerate(texts)]
    others = [share for share in others if share is not None]
    assert sum(others) / len(others) < 0.5
    for text, scene in zip(texts, scenes, strict=True):
        found = clauses_of_caption(text)
        if found.include:
            assert clause_agreement(found, clauses_of_scene(scene)).precision == 1.0


def test_caption_accuracy_by_hand():
    assert caption_accuracy("there is a red circle . there is no square .", SCENE.objects) == 0.5
    # The circle and the square are there, their relation is the other way round.
    assert caption_accuracy("the circle is right of the square .", SCENE.objects) == pytest.approx(2 / 3)
    assert caption_accuracy("a circle is round .", SCENE.objects) is None
