"""Partial credit for an answer that begins the masked span and stops early."""

from typing import Any

from mmrpt_jax.rewards.normalise import STOP_WORDS, words
from mmrpt_jax.rewards.parse import score_answers


def strict_prefix_score(answer: str, truth: str) -> float:
    """Returns the share of the truth that the answer covers if it is a strict prefix of it, else 0.

    With normalised words a_1..a_m and y_1..y_n:

        score = m / n   if 0 < m < n, a = y_1..y_m and some a_i is not a stop word;   0 otherwise.

    Boundaries are words, so `red` does not begin `reddish`. A full match is no strict prefix and scores 0
    here: it is `exact_match` that pays for it, and with a weight of at most 1 against 1 an exact answer
    always earns more. Paying only once the first content word is there keeps `the` or `there is` from being
    worth anything.

    The strict-prefix term is known of MMRPT; scaling and the stop-word rule are ours. RPT (arXiv 2506.08007)
    accepts byte prefixes at token boundaries instead, without scaling.
    """
    given, wanted = words(answer), words(truth)
    strict = 0 < len(given) < len(wanted) and wanted[: len(given)] == given
    if not strict or STOP_WORDS.issuperset(given):
        return 0.0
    return len(given) / len(wanted)


def strict_prefix(
    prompts: list[str], completions: list[str], *, answer: list[str | None], **columns: Any
) -> list[float | None]:
    """Reward `strict_prefix_score` of each completion's answer against the column `answer`; in [0, 1).

    Malformed completions get 0; None where the truth holds no word.
    """
    del prompts, columns
    return score_answers(completions, answer, strict_prefix_score)
