"""Samples of what the policy answered, for people to read: `completions.jsonl`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrpt_jax.reporting.groups import GroupLog


class CompletionsWriter:
    """Writes the first `per_step` groups of each step to `completions.jsonl`; make it on one process only.

    One line is one prompt with its group: `step`, `prompt`, what would have been right, `image` (a reference such as
    the record's id, or null), and one entry per answer in `answers`, `advantages` and every part of `rewards`.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, truth: str = "masked_span", per_step: int = 4):
        """Opens the file for appending; `truth` is the field of what would have been right."""
        self._log = GroupLog(Path(workdir) / "completions.jsonl", per_step=per_step)
        self._truth = truth

    def write(
        self,
        step: int,
        *,
        prompts: Sequence[str],
        truths: Sequence[str],
        answers: Sequence[Sequence[str]],
        rewards: Mapping[str, Any],
        advantages: Any,
        images: Sequence[str | None],
    ) -> None:
        """Writes the groups of one step; the first write of a resumed run drops what was written from there on.

        Args:
            step: training step.
            prompts: B prompts as the policy read them, the image left out.
            truths: B texts: the spans that were cut out, or the true replies to questions.
            answers: B groups of G texts.
            rewards: by part, `[B, G]`; NaN, written as null, where a reward declares an example unscorable.
            advantages: `[B, G]`.
            images: B references to images.

        Raises:
            ValueError: the prompts, groups and images do not agree in number.
        """
        self._log.append(
            step,
            per_prompt={"prompt": prompts, self._truth: truths, "image": images},
            per_member={"answers": answers, "advantages": advantages},
            rewards=rewards,
        )

    def close(self) -> None:
        """Closes the file."""
        self._log.close()
