"""Knowledge consistency: asked about its own image, does the model answer as the prompt demands?

Questions are worded as in `scenes.questions`, so that a model fine-tuned on those can answer. The answers come from
the caller: a frozen copy of the policy, say, with the generated image in view.
"""

from collections.abc import Sequence
from typing import Any

from mmrpt_jax.rewards.kinds import TaggedReward
from mmrpt_jax.rewards.normalise import words
from mmrpt_jax.scenes.clauses import Clause, Clauses
from mmrpt_jax.scenes.questions import (
    Question,
    ask_color,
    ask_count,
    ask_presence,
    ask_relation,
)
from mmrpt_jax.scenes.statements import NUMBERS, plural
from mmrpt_jax.scenes.world import SHAPES


def questions_of_clauses(clauses: Clauses, *, complete: bool = True) -> tuple[Question, ...]:
    """Questions whose right answers are those of an image that meets the clauses.

    For every included clause: whether there is such a shape (in its colour, where several are asked for); its
    colour and its relation, where only one is; its number, where it is exact and has a word. For every exclusion
    that forbids any: whether there is one.

    Who always says yes would be right all too often. So a complete prompt also has one question for each included
    shape about a shape that it does not name, as far as there are enough.

    Args:
        clauses: what a prompt demands, no shape twice.
        complete: whether the prompt accounts for everything in the image, as in `scenes.scene_for`, so that all
            its numbers are exact; otherwise an exclusion of one more makes them so.
    """
    named = {clause.shape for clause in clauses.include}
    unnamed = [shape for shape in SHAPES if shape not in named]
    questions: list[Question] = []
    for clause in clauses.include:
        questions.extend(_about(clause, clauses, complete))
        if complete and unnamed:
            # The next in the circle of shapes, so that all have their turn.
            start = SHAPES.index(clause.shape)
            absent = min(unnamed, key=lambda shape: (SHAPES.index(shape) - start) % len(SHAPES))
            unnamed.remove(absent)
            questions.append(ask_presence(absent, present=False))
    for clause in clauses.exclude:
        if clause.count == 1:
            questions.append(ask_presence(clause.noun(), present=False))
    return tuple(dict.fromkeys(questions))


def knowledge_score(questions: Sequence[Question], answers: Sequence[str]) -> float:
    """Share of questions answered right, in [0, 1].

    Right is the reply ("yes", "no") or the word for the blank ("a", "no"), by `normalise.words`.

    Raises:
        ValueError: there are no questions, or not as many answers.
    """
    if not questions or len(questions) != len(answers):
        raise ValueError(f"Expected an answer to each question, got {len(answers)} for {len(questions)}.")
    right = [
        words(answer) in (words(question.reply), words(question.answer))
        for question, answer in zip(questions, answers, strict=True)
    ]
    return sum(right) / len(right)


def knowledge_consistency(
    clauses: Sequence[Clauses], answers: Sequence[Sequence[str]], *, complete: bool = True, **columns: Any
) -> list[float | None]:
    """Reward `knowledge_score` of the answers to the questions about each image's clauses.

    Args:
        clauses: those of each image's prompt.
        answers: for each image, the answers to `questions_of_clauses` of its clauses, in order.
        complete: as there.

    Returns:
        None where the clauses leave nothing to ask.

    Raises:
        ValueError: an image has another number of answers than questions.
    """
    del columns
    asked = [questions_of_clauses(wanted, complete=complete) for wanted in clauses]
    pairs = zip(asked, answers, strict=True)
    return [knowledge_score(questions, given) if questions else None for questions, given in pairs]


KNOWLEDGE_REWARD = TaggedReward("knowledge", "self", ("generation",), knowledge_consistency)


def _about(clause: Clause, clauses: Clauses, complete: bool) -> list[Question]:
    """Questions about one included clause."""
    single = clause.count == 1
    questions = [ask_presence(clause.shape if single else clause.noun(), present=True)]
    exact = complete or Clause(clause.shape, clause.count + 1) in clauses.exclude
    if exact and clause.count < len(NUMBERS):
        candidates = NUMBERS[: max(4, clause.count + 1)]
        questions.append(ask_count(plural(clause.shape), NUMBERS[clause.count], candidates))
    if clause.color is not None and single:
        questions.append(ask_color(f"the {clause.shape}", clause.shape, clause.color))
    if clause.relation is not None:
        relation, index = clause.relation
        other = clauses.include[index]
        if single and other.count == 1:
            questions.append(ask_relation(f"the {clause.shape}", f"the {other.shape}", relation))
    return questions
