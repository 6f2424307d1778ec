"""Penalties for long completions. Lengths are counted in tokens, from the column `completion_ids`."""

from collections.abc import Sequence
from typing import Any

from mmrpt_jax.rewards.base import RewardFn


def length_score(length: int, *, max_tokens: int) -> float:
    """Returns −length / max_tokens, never below −1: a price on every token."""
    return -min(length / max_tokens, 1.0)


def soft_overlong_score(length: int, *, max_tokens: int, buffer_tokens: int) -> float:
    """DAPO's soft overlong punishment, in [−1, 0] (arXiv 2503.14476, equation 13).

        0                                                       if length ≤ max_tokens − buffer_tokens
        (max_tokens − buffer_tokens − length) / buffer_tokens   in between
        −1                                                      if length > max_tokens

    `max_tokens` is the longest completion the rollout can return, so that the penalty grows towards the cut.
    """
    free_tokens = max_tokens - buffer_tokens
    if length <= free_tokens:
        return 0.0
    return max((free_tokens - length) / buffer_tokens, -1.0)


def make_length_penalty(*, max_tokens: int) -> RewardFn:
    """Returns a reward of `length_score`; raises ValueError unless `max_tokens` is positive."""
    if max_tokens <= 0:
        raise ValueError(f"max_tokens must be positive, got {max_tokens}")

    def length_penalty(
        prompts: list[str], completions: list[str], *, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        del prompts, completions, columns
        return [length_score(len(ids), max_tokens=max_tokens) for ids in completion_ids]

    return length_penalty


def make_soft_overlong(*, max_tokens: int, buffer_tokens: int) -> RewardFn:
    """Returns a reward of `soft_overlong_score`; raises ValueError unless 0 < buffer_tokens ≤ max_tokens."""
    if not 0 < buffer_tokens <= max_tokens:
        raise ValueError(f"need 0 < buffer_tokens <= max_tokens, got {buffer_tokens} and {max_tokens}")

    def soft_overlong(
        prompts: list[str], completions: list[str], *, completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        del prompts, completions, columns
        return [
            soft_overlong_score(len(ids), max_tokens=max_tokens, buffer_tokens=buffer_tokens)
            for ids in completion_ids
        ]

    return soft_overlong
