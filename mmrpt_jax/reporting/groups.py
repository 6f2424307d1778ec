"""Logs of groups: the first few of every step, one prompt with its group per line, cut back where a run resumes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrpt_jax.reporting.jsonl import JsonLines


class GroupLog:
    """A `.jsonl` file of groups; make it on one process only.

    The first write of a resumed run drops what an earlier run wrote of the same step and of later ones.
    """

    def __init__(self, path: str | os.PathLike[str], *, per_step: int):
        """Opens `path` for appending; of each step the first `per_step` groups are kept."""
        self._lines = JsonLines(path)
        self._name = Path(path).stem
        self._per_step = per_step
        self._begun = False

    def append(
        self,
        step: int,
        *,
        per_prompt: Mapping[str, Sequence[Any]],
        per_member: Mapping[str, Any],
        rewards: Mapping[str, Any],
    ) -> None:
        """Writes one line per group, up to the limit.

        Args:
            step: training step.
            per_prompt: B entries by field; `prompt` is one of them.
            per_member: `[B, G]` by field; `advantages` is one of them.
            rewards: `[B, G]` by part; NaN, written as null, where a reward declares an example unscorable.

        Raises:
            ValueError: the prompts and their groups do not agree in number.
        """
        prompts, group = len(per_prompt["prompt"]), np.shape(per_member["advantages"])[1:]
        for name, values in per_prompt.items():
            self._check_shape(name, (len(values),), (prompts,))
        for name, values in {**per_member, **rewards}.items():
            self._check_shape(name, np.shape(values), (prompts, *group))
        if not self._begun:
            self._lines.rewind(lambda record: record["step"] < step)
            self._begun = True
        for b in range(min(self._per_step, prompts)):
            fields = {name: values[b] for name, values in {**per_prompt, **per_member}.items()}
            parts = {part: values[b] for part, values in rewards.items()}
            self._lines.append({"step": step, **fields, "rewards": parts})

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()

    def _check_shape(self, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if shape != expected:
            raise ValueError(
                f"{self._name}: {name} has shape {shape}, the prompts and their groups ask for {expected}"
            )
