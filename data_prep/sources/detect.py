"""From what the user names to a source: the format by its flag, or by what is there."""

import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.sources.base import Source
from data_prep.sources.coco import Coco
from data_prep.sources.jsonl import JsonLines
from data_prep.sources.parquet import Parquet
from data_prep.sources.tfds_sets import TfdsSet
from data_prep.sources.tsv import Tsv
from data_prep.sources.webdataset import WebDataset
from mmrpt_jax.reporting.command_line import UsageError

SUFFIXES = {"jsonl": ".jsonl", "webdataset": ".tar", "parquet": ".parquet", "coco": ".json", "tsv": ".tsv"}
FORMATS = (*SUFFIXES, "tfds")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def open_source(pattern: str, format_name: str | None, images: Path | None) -> Source:
    """Returns the source that `pattern` names.

    Args:
        pattern: a file, a folder, or files by wild cards (``*``) and braces (``{0000..0123}``, ``{a,b}``); a name for
            TFDS.
        format_name: one of FORMATS; None finds it out.
        images: the folder of images, where a format has one.

    Raises:
        UsageError: there is nothing, or it could be in several formats.
    """
    format_name = format_name or detect(pattern)
    makers: dict[str, Callable[[], Source]] = {
        "jsonl": lambda: JsonLines.in_folder(_folder(pattern)),
        "webdataset": lambda: WebDataset(_files(pattern, ".tar")),
        "parquet": lambda: Parquet(_files(pattern, ".parquet"), images),
        "coco": lambda: Coco(_files(pattern, ".json"), images),
        "tsv": lambda: Tsv(_files(pattern, ".tsv"), images),
        "tfds": lambda: TfdsSet(pattern),
    }
    if images is not None and format_name not in ("parquet", "coco", "tsv"):
        raise UsageError(
            f"--images is for parquet, coco and tsv; {format_name} says itself where its images are"
        )
    if images is not None and not images.is_dir():
        raise UsageError(f"--images={images} is not a folder")
    return makers[format_name]()


def detect(pattern: str) -> str:
    """Returns the format of what is at `pattern`; raises UsageError if it is not plain to see."""
    path = Path(pattern)
    if not path.is_dir():
        found = {name for name, suffix in SUFFIXES.items() if path.suffix == suffix}
        if path.is_file() or expand(pattern):
            return _only(found, pattern)
        raise UsageError(f"--input={pattern} is not a folder, and no file has this name")
    if (path / "dataset_info.json").is_file():
        return "tfds"
    if any(path.glob("*.jsonl")):
        return "jsonl"
    return _only({name for name, suffix in SUFFIXES.items() if any(path.glob(f"*{suffix}"))}, pattern)


def expand(pattern: str) -> list[Path]:
    """Returns the files that `pattern` names, sorted; a pattern that a shell would expand names several."""
    return sorted(
        {Path(name) for part in _braces(pattern) for name in _matches(part) if Path(name).is_file()}
    )


def _matches(pattern: str) -> list[str]:
    return glob.glob(pattern) if any(character in pattern for character in "*?[") else [pattern]


def _braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        width = len(numbers[1])
        choices: Sequence[str] = [f"{i:0{width}}" for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = match[1].split(",")
    ends = _braces(pattern[match.end() :])
    return [f"{pattern[: match.start()]}{choice}{end}" for choice in choices for end in ends]


def _only(found: set[str], pattern: str) -> str:
    if not found:
        what = "has no *.jsonl file, nor one" if Path(pattern).is_dir() else "is not"
        raise UsageError(f"{pattern} {what} of a known format ({', '.join(FORMATS)})")
    if len(found) > 1:
        raise UsageError(f"{pattern} could be {' or '.join(sorted(found))}; say which with --format")
    return found.pop()


def _folder(pattern: str) -> Path:
    path = Path(pattern)
    if path.suffix == ".jsonl" and path.is_file():
        raise UsageError(f"name the folder of {path.name} and of its images, not the file")
    if not path.is_dir():
        raise UsageError(f"--input={pattern} is not a folder")
    return path


def _files(pattern: str, suffix: str) -> tuple[Path, ...]:
    path = Path(pattern)
    files = sorted(path.glob(f"*{suffix}")) if path.is_dir() else expand(pattern)
    if not files:
        raise UsageError(f"--input={pattern}: there is no *{suffix} file")
    if len({file.stem for file in files}) < len(files):
        raise UsageError(f"--input={pattern} names several files of one name; convert them one by one")
    return tuple(files)
