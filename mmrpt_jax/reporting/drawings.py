"""Samples of what the policy drew, for people to see: `drawings.jsonl` and contact sheets."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from mmrpt_jax.reporting.contact_sheet import contact_sheet
from mmrpt_jax.reporting.groups import GroupLog


class DrawingsWriter:
    """Writes the first `per_step` groups of each step to `drawings.jsonl`; make it on one process only.

    One line is one prompt with its group: `step`, `prompt`, one entry per drawing in `advantages` and every part of
    `rewards`, and in `sheet` the picture that shows them, or null: `drawings/step-000020.png`, of every n-th step.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, per_step: int = 4, sheet_every: int = 20):
        """Opens the file for appending; pictures are of steps that `sheet_every` divides, of none if it is 0."""
        self._workdir = Path(workdir)
        self._log = GroupLog(self._workdir / "drawings.jsonl", per_step=per_step)
        self._per_step, self._sheet_every = per_step, sheet_every

    def write(
        self,
        step: int,
        *,
        prompts: Sequence[str],
        images: UInt8[np.ndarray, "B G h w 3"],
        rewards: Mapping[str, Float[np.ndarray, "B G"]],
        advantages: Float[np.ndarray, "B G"],
    ) -> None:
        """Writes the groups of one step; the first write of a resumed run drops what was written from there on.

        Args:
            step: training step.
            prompts: B prompts.
            images: what was drawn of them, sRGB.
            rewards: by part; NaN, written as null, where a reward declares a drawing unscorable.
            advantages: of each drawing in its group.

        Raises:
            ValueError: the prompts and the groups do not agree in number.
        """
        if np.shape(images)[:2] != np.shape(advantages):
            raise ValueError(
                f"drawings: images has shape {np.shape(images)}, the advantages {np.shape(advantages)}"
            )
        shown = bool(self._sheet_every) and step % self._sheet_every == 0
        sheet = f"drawings/step-{step:06d}.png" if shown else None
        self._log.append(
            step,
            per_prompt={"prompt": prompts, "sheet": [sheet] * len(prompts)},
            per_member={"advantages": advantages},
            rewards=rewards,
        )
        if sheet:
            self._write_sheet(sheet, step, prompts, images, advantages)

    def close(self) -> None:
        """Closes the file."""
        self._log.close()

    def _write_sheet(
        self,
        name: str,
        step: int,
        prompts: Sequence[str],
        images: UInt8[np.ndarray, "B G h w 3"],
        advantages: Float[np.ndarray, "B G"],
    ) -> None:
        kept = slice(self._per_step)
        picture = contact_sheet(
            prompts[kept], np.asarray(images)[kept], np.asarray(advantages)[kept], title=f"step {step}"
        )
        path = self._workdir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
