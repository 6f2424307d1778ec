"""What a prompt demands of an image, and whether the objects in the image meet it.

Clauses, their two grades and the metadata follow GenEval (arXiv 2310.11513, github.com/djghosh13/geneval): a
prompt includes so many objects of a shape, perhaps of a colour, perhaps in a relation to another clause, and
excludes others. GenEval's detector is replaced by the verifier, its classes by shapes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrpt_jax.scenes.references import RELATIONS, relation_phrase, untag
from mmrpt_jax.scenes.statements import plural
from mmrpt_jax.scenes.world import COLORS, SHAPES, Object

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
POSITION_SHRINK = 0.1
POSITION_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class Clause:
    """`count` objects of a shape.

    Attributes:
      shape: One of `SHAPES`.
      count: ≥ 1. How it is meant, at least or exactly, is up to who grades.
      color: One of `COLORS`, or `None` for any.
      relation: `(relation, index)`: the objects lie left of, right of, above or below (`RELATIONS`) those of the
        clause at that earlier place of `Clauses.include`; or `None`.
    """

    shape: str
    count: int = 1
    color: str | None = None
    relation: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if self.shape not in SHAPES or self.color not in (None, *COLORS) or self.count < 1:
            raise ValueError(
                f"A clause takes a shape of {SHAPES}, a count ≥ 1 and a colour of {COLORS} or None, got {self}."
            )
        if self.relation is not None and self.relation[0] not in RELATIONS:
            raise ValueError(f"A clause takes a relation of {RELATIONS}, got {self.relation[0]!r}.")

    def fits(self, obj: Object) -> bool:
        """Whether the object has the shape and, if one is named, the colour."""
        return obj.shape == self.shape and self.color in (None, obj.color)

    def noun(self, count: int = 1) -> str:
        """What `count` such objects are called: "red circle", "circle", "red circles"."""
        shape = self.shape if count == 1 else plural(self.shape)
        return f"{self.color} {shape}" if self.color else shape


@dataclasses.dataclass(frozen=True)
class Clauses:
    """All of `include` are demanded; `exclude` forbids `count` or more objects of each of its clauses."""

    include: tuple[Clause, ...] = ()
    exclude: tuple[Clause, ...] = ()

    def __post_init__(self) -> None:
        for place, clause in enumerate(self.include):
            if clause.relation is not None and not 0 <= clause.relation[1] < place:
                raise ValueError(f"Clause {place} must be related to an earlier one, got {clause}.")
        if related := [clause for clause in self.exclude if clause.relation is not None]:
            raise ValueError(f"Excluded clauses take no relation, got {related}.")


@dataclasses.dataclass(frozen=True)
class ScenePrompt:
    """What to draw.

    Attributes:
      text: Lower case, words and punctuation separated by single spaces, as in captions.
      tag: One of `TAGS`.
      clauses: What the text demands: something, and no shape twice, so that counting a shape checks one clause.
    """

    text: str
    tag: str
    clauses: Clauses

    def __post_init__(self) -> None:
        if self.tag not in TAGS:
            raise ValueError(f"Unknown tag {self.tag!r}; choose one of {TAGS}.")
        shapes = [clause.shape for clause in self.clauses.include]
        if not shapes or len(set(shapes)) < len(shapes):
            raise ValueError(f"A prompt includes at least one shape and none twice, got {shapes}.")


def metadata(prompt: ScenePrompt) -> dict[str, Any]:
    """The prompt as a line of GenEval's `metadata.jsonl`: tag, include, exclude, prompt.

    A clause is `{class, count, color?, position?: [relation, index]}`, relations being "left of", "right of",
    "above" and "below".
    """

    def line(clause: Clause) -> dict[str, Any]:
        fields: dict[str, Any] = {"class": clause.shape, "count": clause.count}
        if clause.color is not None:
            fields["color"] = clause.color
        if clause.relation is not None:
            fields["position"] = [untag(relation_phrase(clause.relation[0])), clause.relation[1]]
        return fields

    return {
        "tag": prompt.tag,
        "include": [line(clause) for clause in prompt.clauses.include],
        "exclude": [line(clause) for clause in prompt.clauses.exclude],
        "prompt": prompt.text,
    }


def stands(first: Object, relation: str, second: Object) -> bool:
    """GenEval's rule for "`first` is left of, right of, above or below `second`".

    With d the offset of the centres and s the sum of the two boxes' sides, along each axis:
    `u = sign(d) · max(|d| - 0.1 s, 0) / ‖d‖`; left if `u_x < -0.5`, right if `u_x > 0.5`, above if `u_y < -0.5`,
    below if `u_y > 0.5`. Stricter than `references.related`; on a diagonal, two relations may hold.
    """
    offset = np.array([first.x - second.x, first.y - second.y], float)
    if not offset.any():
        return False
    shrunk = np.maximum(abs(offset) - POSITION_SHRINK * 2 * (first.radius + second.radius), 0.0)
    right, down = np.sign(offset) * shrunk / np.linalg.norm(offset)
    return {"left": -right, "right": right, "above": -down, "below": down}[relation] > POSITION_THRESHOLD


def strict(objects: Sequence[Object], clauses: Clauses, *, exact: bool = False) -> float:
    """GenEval's grade: 1 if every included clause holds and no excluded one does, else 0.

    A clause asks for at least `count` objects of its shape, of which at least `count` have the colour, of which
    at least `count` lie in the relation to the objects of the other clause. Which of several candidates GenEval
    compares depends on its detector's confidence; here it is enough that some qualify.

    Args:
      objects: What the image shows.
      clauses: What was asked for.
      exact: Numbers of objects must be met exactly, as in the reward of Flow-GRPO (arXiv 2505.05470). An image
        crowded with everything pleases GenEval's "at least"; train on this.
    """
    included = all(holds(objects, clauses, place, exact=exact) for place in range(len(clauses.include)))
    return float(included and not any(_count(objects, clause) >= clause.count for clause in clauses.exclude))


def soft(objects: Sequence[Object], clauses: Clauses) -> float:
    """The partial grade of Flow-GRPO, in [0, 1]: the mean over all that is demanded, one term for each.

    For n objects of the clause's shape where n* are demanded, m of them in its colour:

        number     max(0, 1 - |n - n*| / n*)
        colour     max(0, 1 - |m - n*| / n*) if n = n*, else 0
        relation   1 if n = n*, m = n*, the same is true of the other clause, and the relation holds; else 0

    Here a failed relation is one term of 0. The public code of DiffusionNFT, a copy of Flow-GRPO's, counts it as
    a 0 and a 1, and goes below 0 where n > 2 n*. Excluded clauses bear on nothing but `strict`; without
    included ones its grade is returned.
    """
    if not clauses.include:
        return strict(objects, clauses)
    terms = []
    for place, clause in enumerate(clauses.include):
        number = _count(objects, Clause(clause.shape))
        terms.append(_closeness(number, clause.count))
        if clause.color is not None:
            colored = _closeness(_count(objects, clause), clause.count)
            terms.append(colored if number == clause.count else 0.0)
        if clause.relation is not None:
            other = clauses.include[clause.relation[1]]
            complete = _complete(objects, clause) and _complete(objects, other)
            terms.append(float(complete and holds(objects, clauses, place, exact=True)))
    return float(np.mean(terms))


def _count(objects: Sequence[Object], clause: Clause) -> int:
    return sum(clause.fits(obj) for obj in objects)


def _complete(objects: Sequence[Object], clause: Clause) -> bool:
    """Whether the numbers of the shape and of the shape in its colour are exactly the one demanded."""
    return _count(objects, Clause(clause.shape)) == _count(objects, clause) == clause.count


def _closeness(number: int, wanted: int) -> float:
    return max(0.0, 1.0 - abs(number - wanted) / wanted)


def holds(objects: Sequence[Object], clauses: Clauses, place: int, *, exact: bool = False) -> bool:
    """Whether the included clause at `place` is met, as `strict` means it."""
    clause = clauses.include[place]
    members = [obj for obj in objects if clause.fits(obj)]
    if len(members) < clause.count or (exact and not _complete(objects, clause)):
        return False
    if clause.relation is None:
        return True
    relation, index = clause.relation
    target = clauses.include[index]
    others = [obj for obj in objects if target.fits(obj)]
    placed = [sum(stands(obj, relation, other) for other in others) >= target.count for obj in members]
    return sum(placed) >= clause.count
