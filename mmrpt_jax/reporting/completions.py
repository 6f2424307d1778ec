"""Samples of what the policy answered, for people to read: `completions.jsonl`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.reporting.jsonl import JsonLines


class CompletionsWriter:
    """Writes the first `per_step` groups of each step to `completions.jsonl`; make it on one process only.

    One line is one prompt with its group: `step`, `prompt`, `masked_span`, `image` (a reference such as the
    record's id, or null), and one entry per answer in `answers`, `advantages` and every part of `rewards`.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, per_step: int = 4):
        """Opens the file for appending."""
        self._lines = JsonLines(Path(workdir) / "completions.jsonl")
        self._per_step = per_step

    def write(
        self,
        step: int,
        *,
        prompts: Sequence[str],
        masked_spans: Sequence[str],
        answers: Sequence[Sequence[str]],
        rewards: Mapping[str, Any],
        advantages: Any,
        images: Sequence[str | None],
    ) -> None:
        """Writes the groups of one step.

        Args:
            step: training step.
            prompts: B prompts as the policy read them, the image left out.
            masked_spans: B true spans that were cut out.
            answers: B groups of G texts.
            rewards: by part, `[B, G]`; NaN, written as null, where a reward declares an example unscorable.
            advantages: `[B, G]`.
            images: B references to images.

        Raises:
            ValueError: the prompts, groups and images do not agree in number.
        """
        shape = (len(prompts), len(answers[0]) if answers else 0)
        _check_shape("masked_spans", (len(masked_spans),), shape[:1])
        _check_shape("images", (len(images),), shape[:1])
        for name, values in {"answers": answers, "advantages": advantages, **rewards}.items():
            _check_shape(name, np.shape(values), shape)
        for b in range(min(self._per_step, shape[0])):
            self._lines.append(
                {
                    "step": step,
                    "prompt": prompts[b],
                    "masked_span": masked_spans[b],
                    "answers": answers[b],
                    "rewards": {part: values[b] for part, values in rewards.items()},
                    "advantages": advantages[b],
                    "image": images[b],
                }
            )

    def rewind(self, step: int) -> None:
        """Forgets what was written after `step`, the step of the checkpoint that training resumes from."""
        self._lines.rewind(lambda record: record["step"] <= step)

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(
            f"completions: {name} has shape {shape}, the prompts and their answers ask for {expected}"
        )
