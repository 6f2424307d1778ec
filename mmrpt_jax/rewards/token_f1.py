"""Overlap of the answer's words with those of the masked span."""

from collections import Counter
from typing import Any

from mmrpt_jax.rewards.normalise import STOP_WORDS, words
from mmrpt_jax.rewards.parse import score_answers


def token_f1_score(answer: str, truth: str) -> float:
    """Returns the F1 of the two bags of normalised words, in [0, 1].

    F1 = 2·c / (m + n), with m and n words in answer and truth and c words in common, counted with
    multiplicity (Rajpurkar et al., arXiv 1606.05250). Sharing nothing but stop words counts as sharing
    nothing, unless the answer is exact.
    """
    given, wanted = words(answer), words(truth)
    common = Counter(given) & Counter(wanted)
    if given != wanted and STOP_WORDS.issuperset(common):
        return 0.0
    return 2.0 * common.total() / (len(given) + len(wanted)) if common else 0.0


def token_f1(
    prompts: list[str], completions: list[str], *, answer: list[str | None], **columns: Any
) -> list[float | None]:
    """Reward `token_f1_score` of each completion's answer against the column `answer`; in [0, 1].

    Malformed completions get 0; None where the truth holds no word.
    """
    del prompts, columns
    return score_answers(completions, answer, token_f1_score)
