"""Which split a record belongs to."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

from mmrpt_jax.reporting.command_line import UsageError

_SETTING = re.compile(r"([A-Za-z]\w*)=(0?\.\d+)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Splitter:
    """Assigns records to splits by their group, so that a group never lies in two of them.

    Records of the file split `source` go to each split named in `fractions` with that probability, by a hash
    of the group, so adding rows moves no old ones; all others stay in the split of their file.
    """

    source: str
    fractions: Mapping[str, float]

    def __call__(self, file_split: str, group: str) -> str:
        """Returns the split of a record of `group` from the file split `file_split`."""
        if file_split == self.source:
            place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
            for split, fraction in self.fractions.items():
                if place < fraction:
                    return split
                place -= fraction
        return file_split


def make_splitter(settings: Sequence[str], file_splits: Sequence[str]) -> Splitter:
    """Parses NAME=FRACTION settings; the fractions are taken from the split train, or from the only one.

    Raises:
        UsageError: a setting is malformed, names a split that exists, or nothing is left over.
    """
    fractions: dict[str, float] = {}
    for setting in settings:
        match = _SETTING.fullmatch(setting)
        if not match or match[1] in fractions or not float(match[2]):
            raise UsageError(
                f"--split_fraction takes NAME=FRACTION, each name once, as in dev=0.1, not {setting!r}"
            )
        if match[1] in file_splits:
            raise UsageError(
                f"--split_fraction {setting}: {match[1]} is a split already; choose another name"
            )
        fractions[match[1]] = float(match[2])
    if sum(fractions.values()) >= 1:
        raise UsageError("the fractions of --split_fraction must sum to less than 1")
    source = file_splits[0] if len(file_splits) == 1 else "train"
    if fractions and source not in file_splits:
        raise UsageError("--split_fraction needs a split train to take from, or a single split")
    return Splitter(source, fractions)
