"""Verdicts in words: is an image what its prompt asked for, and if not, what is the first thing wrong with it?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmrpt_jax.scenes.clauses import Clause, Clauses, ScenePrompt, holds
from mmrpt_jax.scenes.references import relation_phrase, untag
from mmrpt_jax.scenes.statements import NUMBERS
from mmrpt_jax.scenes.verifier import read
from mmrpt_jax.scenes.world import Object

AS_ASKED = "as asked"


class Verdict(NamedTuple):
    """What `strict` says of an image, in words.

    Attributes:
      correct: Whether `strict` gives 1.
      reason: `AS_ASKED`, or what is wrong: "no blue square", "two circles, not three", "circle not left of cross".
    """

    correct: bool
    reason: str


def grade_image(prompt: ScenePrompt, image: np.ndarray, *, exact: bool = False) -> Verdict:
    """The verdict on an image, from what the verifier reads in its pixels.

    Args:
      prompt: What was asked for.
      image: uint8 `[64 k, 64 k, 3]`, any content.
      exact: See `strict`; GenEval's own grade is not.

    Raises:
      ValueError: If the array is no such image.
    """
    return grade_objects(prompt.clauses, read(image).objects, exact=exact)


def grade_objects(clauses: Clauses, objects: Sequence[Object], *, exact: bool = False) -> Verdict:
    """The verdict on objects; the reason is that of the first clause that fails, included ones before excluded."""
    for place in range(len(clauses.include)):
        if not holds(objects, clauses, place, exact=exact):
            return Verdict(False, _missing(objects, clauses, place, exact))
    for clause in clauses.exclude:
        if _count(objects, clause) >= clause.count:
            return Verdict(False, _too_many(objects, clause))
    return Verdict(True, AS_ASKED)


def _missing(objects: Sequence[Object], clauses: Clauses, place: int, exact: bool) -> str:
    """Why the included clause at `place` fails: no such objects, not so many, or not where they should be."""
    clause = clauses.include[place]
    counted = clause
    if exact and _count(objects, clause) == clause.count:
        # Enough of them in the colour; in another one there must be none.
        counted = Clause(clause.shape)
    found = _count(objects, counted)
    if not found:
        return f"no {counted.noun(clause.count)}"
    if clause.relation is None or found < clause.count or (exact and found != clause.count):
        return f"{_number(found)} {counted.noun(found)}, not {_number(clause.count)}"
    relation, index = clause.relation
    target = clauses.include[index]
    where = untag(relation_phrase(relation))
    return f"{clause.noun(clause.count)} not {where} {target.noun(target.count)}"


def _too_many(objects: Sequence[Object], clause: Clause) -> str:
    found = _count(objects, clause)
    if clause.count == 1:
        return f"{_number(found)} {clause.noun(found)}, unasked"
    return f"{_number(found)} {clause.noun(found)}, not {_number(clause.count - 1)}"


def _count(objects: Sequence[Object], clause: Clause) -> int:
    return sum(clause.fits(obj) for obj in objects)


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
