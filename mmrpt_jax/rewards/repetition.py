"""Penalty for a completion that repeats itself."""

import re
from typing import Any

from mmrpt_jax.rewards.base import RewardFn

_WORD = re.compile(r"\w+")


def repeated_ngram_share(text: str, *, n: int) -> float:
    """Returns the share of word n-grams that occurred before in the text, in [0, 1).

    share = 1 − distinct n-grams / all n-grams; 0 for a text of fewer than n words. A word is a run of
    letters, digits and underscores, case folded. (Distinct-n of Li et al., arXiv 1510.03055, turned round.)
    """
    found = _WORD.findall(text.casefold())
    ngrams = list(zip(*(found[start:] for start in range(n)), strict=False))
    return 1.0 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def make_repetition_penalty(*, n: int) -> RewardFn:
    """Returns a reward of −`repeated_ngram_share` of the whole completion; raises ValueError if n < 1."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")

    def repetition_penalty(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
        del prompts, columns
        return [-repeated_ngram_share(completion, n=n) for completion in completions]

    return repetition_penalty
