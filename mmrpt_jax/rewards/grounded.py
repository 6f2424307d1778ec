"""A right answer is worth what the image had to say for it."""

from typing import Any

from mmrpt_jax.rewards.exact import exact_match
from mmrpt_jax.rewards.visual_gain import visual_gain_reward


def grounded_match(
    prompts: list[str],
    completions: list[str],
    *,
    answer: list[str | None],
    visual_gain: list[float | None],
    **columns: Any,
) -> list[float | None]:
    """exact match · visual gain, in [0, 1]: our form of a semantic-visual reward that cannot be earned by guessing.

    An answer that the words alone would have given earns little although it is right, and a wrong answer earns
    nothing however much the image speaks for it. Over a corpus where most circles are red, what is paid for "red"
    and for "blue" evens out: the gain of a word falls as its prior rises, so that the corpus' bias is no longer in
    the policy's interest. This needs advantages that keep the size of rewards (`scale="none"` or "batch"): with the
    group's standard deviation as divisor every group counts the same again.

    Gating the perception term by correctness follows VAPO and AVAR (arXiv 2603.03825), whose ungated forms are gamed.
    None where either part is None.
    """
    right = exact_match(prompts, completions, answer=answer, **columns)
    gain = visual_gain_reward(prompts, completions, visual_gain=visual_gain)
    return [None if r is None or g is None else r * max(g, 0.0) for r, g in zip(right, gain, strict=True)]
