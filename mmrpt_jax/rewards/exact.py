"""Exact match of the answer with the masked span."""

from typing import Any

from mmrpt_jax.rewards.normalise import words
from mmrpt_jax.rewards.parse import score_answers


def exact_match_score(answer: str, truth: str) -> float:
    """Returns 1 if both have the same normalised words in the same order, and at least one; else 0."""
    return float(bool(words(answer)) and words(answer) == words(truth))


def exact_match(
    prompts: list[str], completions: list[str], *, answer: list[str | None], **columns: Any
) -> list[float | None]:
    """Reward `exact_match_score` of each completion's answer against the column `answer`; in {0, 1}.

    One of the two reward terms known of MMRPT (arXiv 2512.07203). Malformed completions get 0; None where the
    truth holds no word.
    """
    del prompts, columns
    return score_answers(completions, answer, exact_match_score)
