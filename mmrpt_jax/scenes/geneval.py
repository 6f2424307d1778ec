"""Numbers about generated images and captions that no judge model has a say in.

All of them compare clauses with what the verifier reads from pixels, or clauses with clauses.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mmrpt_jax.scenes.caption_clauses import Kind, clauses_of_caption
from mmrpt_jax.scenes.clauses import TAGS, Clause, Clauses, ScenePrompt, strict
from mmrpt_jax.scenes.references import INVERSE, related
from mmrpt_jax.scenes.world import Object, Scene

Relation = tuple[Kind, str, Kind]


class TagScores(NamedTuple):
    """GenEval's numbers.

    Attributes:
      by_tag: Accuracy in [0, 1] of every tag that occurs, in the order of `TAGS`.
      overall: Mean of these accuracies, so that a tag weighs the same however many prompts it has.
    """

    by_tag: dict[str, float]
    overall: float


class Agreement(NamedTuple):
    """How two sets of clauses agree; each in [0, 1], `f1` being the harmonic mean of the others."""

    precision: float
    recall: float
    f1: float


def geneval_scores(
    prompts: Sequence[ScenePrompt], scenes: Sequence[Scene], *, exact: bool = False
) -> TagScores:
    """Share of images that `strict` passes, by tag, and the mean over tags.

    Args:
      prompts: One per image; a prompt with several images is repeated.
      scenes: What the verifier read from each image.
      exact: See `strict`; GenEval's own numbers are not.

    Raises:
      ValueError: If there are no images, or not as many as prompts.
    """
    if not prompts or len(prompts) != len(scenes):
        raise ValueError(
            f"Expected one prompt per image, got {len(prompts)} prompts for {len(scenes)} images."
        )
    passed: dict[str, list[float]] = {tag: [] for tag in TAGS}
    for prompt, scene in zip(prompts, scenes, strict=True):
        passed[prompt.tag].append(strict(scene.objects, prompt.clauses, exact=exact))
    by_tag = {tag: float(np.mean(grades)) for tag, grades in passed.items() if grades}
    return TagScores(by_tag, float(np.mean(list(by_tag.values()))))


def layout(scene: Scene, *, cell: int = 16) -> tuple[tuple[str, str, int, int], ...]:
    """Shape, colour and grid cell (of `cell` pixels) of every object, sorted; equal for scenes much alike."""
    return tuple(sorted((obj.shape, obj.color, obj.x // cell, obj.y // cell) for obj in scene.objects))


def diversity(scenes: Sequence[Scene], *, cell: int = 16) -> float:
    """Distinct layouts per image of a group, in (0, 1]; 1/G if all G are alike.

    Raises:
      ValueError: If the group is empty.
    """
    if not scenes:
        raise ValueError("An empty group has no diversity.")
    return len({layout(scene, cell=cell) for scene in scenes}) / len(scenes)


def clauses_of_scene(scene: Scene) -> Clauses:
    """How many objects there are of every shape in every colour, without relations and exclusions."""
    numbers = Counter(obj.pair for obj in scene.objects)
    return Clauses(tuple(Clause(shape, count, color) for (color, shape), count in numbers.items()))


def clause_agreement(found: Clauses, truth: Clauses) -> Agreement:
    """Compares the included clauses of two sets, e.g. of a caption and of the image it was given.

    precision = share of `found` that `truth` implies; recall = share of `truth` that `found` implies. Numbers are
    lower bounds: a red and a blue circle imply two circles and a circle; nothing implies more than it says. Left of
    implies the inverse's right of. A set without relations is silent about places, so the other's relations are
    left out. Exclusions are left out too: no caption lists all that an image does not hold.

    Returns:
      All 1 if both sets are empty, all 0 if one is.
    """
    silent = not all(any(clause.relation for clause in clauses.include) for clauses in (found, truth))
    stated, wanted = (
        [clause for clause in clauses.include if not (silent and clause.relation)]
        for clauses in (found, truth)
    )
    if not stated or not wanted:
        return Agreement(*3 * (float(not stated and not wanted),))
    precision = float(np.mean([_implies(truth, clause, found) for clause in stated]))
    recall = float(np.mean([_implies(found, clause, truth) for clause in wanted]))
    total = precision + recall
    return Agreement(precision, recall, 2 * precision * recall / total if total else 0.0)


def caption_accuracy(text: str, objects: Sequence[Object]) -> float | None:
    """Share of a caption's clauses, included and excluded, that are true of the objects; `None` if it has none.

    Relations are judged as captions mean them, by `references.related`.
    """
    clauses = clauses_of_caption(text)
    verdicts = [sum(clause.fits(obj) for obj in objects) < clause.count for clause in clauses.exclude]
    for clause in clauses.include:
        members = [obj for obj in objects if clause.fits(obj)]
        if clause.relation is None:
            verdicts.append(len(members) >= clause.count)
        else:
            relation, index = clause.relation
            others = [obj for obj in objects if clauses.include[index].fits(obj)]
            verdicts.append(any(related(obj, relation, other) for obj in members for other in others))
    return float(np.mean(verdicts)) if verdicts else None


def _implies(known: Clauses, clause: Clause, home: Clauses) -> bool:
    """Whether `known` implies a clause of `home`."""
    least: dict[Kind, int] = {}
    for other in known.include:
        kind = other.shape, other.color
        least[kind] = max(least.get(kind, 0), other.count)
    colored = [count for (shape, color), count in least.items() if shape == clause.shape and color]
    at_least = least.get((clause.shape, clause.color), 0)
    if clause.color is None:
        at_least = max(at_least, sum(colored))
    if clause.relation is None or at_least < clause.count:
        return at_least >= clause.count
    first, wanted, second = _relation(clause, home)
    return any(
        relation == wanted and _covers(one, first) and _covers(other, second)
        for one, relation, other in _both_ways(known)
    )


def _relation(clause: Clause, home: Clauses) -> Relation:
    assert clause.relation is not None
    relation, index = clause.relation
    other = home.include[index]
    return (clause.shape, clause.color), relation, (other.shape, other.color)


def _both_ways(clauses: Clauses) -> Iterator[Relation]:
    for clause in clauses.include:
        if clause.relation is not None:
            first, relation, second = _relation(clause, clauses)
            yield first, relation, second
            yield second, INVERSE[relation], first


def _covers(kind: Kind, wanted: Kind) -> bool:
    """Whether a shape, perhaps of a known colour, is an instance of the one wanted."""
    return kind[0] == wanted[0] and wanted[1] in (None, kind[1])
