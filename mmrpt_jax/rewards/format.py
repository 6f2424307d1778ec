"""Payment for keeping to the output format."""

from typing import Any

from mmrpt_jax.rewards.parse import parse_completion


def is_well_formed(completion: str) -> bool:
    """Says whether `parse.parse_completion` accepts the completion; the default gate of `compose.score`."""
    return parse_completion(completion).well_formed


def format_reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    """Reward 1 for a well-formed completion, else 0.

    Keep its weight small: a completion with a wrong answer earns it in full.
    """
    del prompts, columns
    return [float(is_well_formed(completion)) for completion in completions]
