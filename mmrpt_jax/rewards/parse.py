"""Reading a completion: `<think>…</think><answer>…</answer>`, strictly."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mmrpt_jax.rewards.normalise import words

_INSIDE = r"((?:(?!</?(?:think|answer)>).)*)"
_COMPLETION = re.compile(rf"\s*<think>{_INSIDE}</think>\s*<answer>{_INSIDE}</answer>\s*", re.DOTALL)


class Parsed(NamedTuple):
    """A completion taken apart; `think` and `answer` are stripped, and empty unless `well_formed`."""

    think: str
    answer: str
    well_formed: bool


def parse_completion(text: str) -> Parsed:
    """Splits a completion into thought and answer.

    Well formed means: exactly one `<think>…</think>` followed by exactly one `<answer>…</answer>`, nothing
    but whitespace around and between them, no such tag inside either, and an answer that is not blank. The
    thought may be empty (the no-think control). Anything else yields no answer at all: an answer fished out
    of a malformed completion would pay for ignoring the format.
    """
    match = _COMPLETION.fullmatch(text)
    if match is None or not match[2].strip():
        return Parsed(think="", answer="", well_formed=False)
    return Parsed(think=match[1].strip(), answer=match[2].strip(), well_formed=True)


def score_answers(
    completions: Sequence[str], truths: Sequence[str | None], score: Callable[[str, str], float]
) -> list[float | None]:
    """Applies `score(answer, truth)` to each completion's answer.

    Args:
        completions: N completions.
        truths: N true spans.
        score: called with the stripped answer and the truth, only for well-formed completions.

    Returns:
        N scores: 0 for a malformed completion, None where the truth is None or holds no word to compare with.
    """
    scores: list[float | None] = []
    for completion, truth in zip(completions, truths, strict=True):
        parsed = parse_completion(completion)
        if truth is None or not words(truth):
            scores.append(None)
        else:
            scores.append(score(parsed.answer, truth) if parsed.well_formed else 0.0)
    return scores
