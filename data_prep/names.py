"""Names of splits and datasets, made of the names of files."""

import re
from pathlib import Path

# What tells the shards of one split apart: -00003, _0003, -00000-of-00002, or a year as in train2017.
_NUMBERING = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")


def identifier(text: str, prefix: str) -> str:
    """Makes `text` fit for TFDS: letters, digits, underscores, beginning with a letter."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"{prefix}_{name}"


def shard_split(file: Path) -> str:
    """The split that a numbered shard belongs to, as in validation-00000-of-00002; train if there is only a number."""
    name = _NUMBERING.sub("", file.stem).rstrip("-_.")
    return identifier(name, "split") if name else "train"
