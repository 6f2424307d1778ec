"""The list of a dataset's files with their sizes, checksums and numbers of records: what was written is what is read.

A manifest is written last, so a directory that has one is complete.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

PathLike = str | os.PathLike[str]
MANIFEST = "manifest.json"


class DamagedDatasetError(ValueError):
    """A dataset is not what its manifest says; the message is one sentence that names the file."""


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """What a file must be.

    Attributes:
        bytes: its size.
        sha256: the hexadecimal checksum of its content.
        records: records in it, or None if it is no shard.
    """

    bytes: int
    sha256: str
    records: int | None = None


def describe_file(path: Path, records: int | None = None) -> FileEntry:
    """Reads a file once and returns its entry."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.stat().st_size, checksum, records)


def write_manifest(directory: Path, files: Mapping[str, FileEntry], job: str = "") -> None:
    """Writes the manifest of `directory`; it appears complete or not at all.

    Args:
        directory: the dataset.
        files: entries by file name.
        job: identifies what made the dataset; a command that finds its own job here is done.
    """
    content = {"job": job, "files": {name: dataclasses.asdict(files[name]) for name in sorted(files)}}
    partial = directory / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(directory / MANIFEST)


def read_manifest(directory: PathLike) -> tuple[str, dict[str, FileEntry]] | None:
    """Returns (job, entries by file name), or None if there is no manifest.

    Raises:
        DamagedDatasetError: the manifest is unreadable.
    """
    path = Path(directory, MANIFEST)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        files = {name: FileEntry(**entry) for name, entry in content["files"].items()}
        if any(Path(name).name != name for name in files):
            raise ValueError("a file lies elsewhere")
        return str(content["job"]), files
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedDatasetError(f"{path} is no manifest; convert the data again ({error})") from error


def verify(directory: PathLike, shard_lengths: Mapping[str, int], *, checksums: bool = False) -> None:
    """Compares a dataset with its manifest; a dataset without one passes.

    Args:
        directory: the dataset.
        shard_lengths: records by file name, as the dataset's own metadata has them.
        checksums: also read every file. Sizes and numbers of records cost no reading.

    Raises:
        DamagedDatasetError: a file is missing, is not listed, or differs.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        return
    files = manifest[1]
    listed = {name: entry.records for name, entry in files.items() if entry.records is not None}
    for name in sorted(listed.keys() | shard_lengths.keys()):
        if listed.get(name) != shard_lengths.get(name):
            raise DamagedDatasetError(
                f"{Path(directory, name)}: {MANIFEST} says {_records(listed.get(name))} where "
                f"dataset_info.json says {_records(shard_lengths.get(name))}; convert the data again"
            )
    for name, entry in files.items():
        _verify_file(Path(directory, name), entry, checksums)


def _verify_file(path: Path, entry: FileEntry, checksums: bool) -> None:
    if not path.is_file():
        raise DamagedDatasetError(f"{path} is missing; copy it again, or convert the data again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise DamagedDatasetError(
            f"{path} has {size} bytes, {MANIFEST} says {entry.bytes}; copy it again, or convert the data again"
        )
    if checksums and describe_file(path).sha256 != entry.sha256:
        raise DamagedDatasetError(
            f"{path} was changed: its checksum is not that of {MANIFEST}; copy it again, or convert the data again"
        )


def _records(count: int | None) -> str:
    return "nothing" if count is None else f"{count} records"
