"""A dataset that TFDS has prepared, stored as ArrayRecord: a folder, or a name in the TFDS data directory."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from data_prep.errors import Reject
from data_prep.folders import NamedImages
from data_prep.sources.base import Item, OnReject, Task
from mmrpt_jax.data.tfds_view import holds_images, open_prepared, open_rows, plain
from mmrpt_jax.reporting.command_line import UsageError


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """Rows have the dataset's fields; an image's value becomes its name, a sequence of images a list of names.

    `"captions/text"` names a nested field.
    """

    name: str
    adapter = None

    @property
    def files(self) -> list[Path]:
        """All files of the dataset."""
        return sorted(path for path in Path(self._builder.data_dir).iterdir() if path.is_file())

    @property
    def splits(self) -> list[str]:
        """Those of the dataset."""
        return list(self._builder.info.splits)

    def plan(self, scratch: Path, rows: int, on_reject: OnReject) -> Iterator[Task]:
        """Yields ranges of rows."""
        for split, info in self._builder.info.splits.items():
            for start in range(0, info.num_examples, rows):
                yield Task(
                    f"{self.name}:{split}", split, start + 1, start, min(start + rows, info.num_examples)
                )

    def read(self, task: Task, scratch: Path) -> Iterator[Item]:
        """Yields the rows."""
        try:
            source = open_rows(self._builder, task.split)
        # A damaged shard is an error of the C++ reader, which has types of its own.
        except Exception as error:
            yield Item(None, Reject("damaged record", str(error)))
            return
        features = self._builder.info.features
        images = [key for key in features if holds_images(features[key])]
        for index in range(task.start, task.stop):
            try:
                row = source[index]
            except Exception as error:
                yield Item(index + 1, Reject("damaged record", str(error)))
                continue
            inside: dict[str, bytes] = {}
            for key in images:
                row[key] = _take(row[key], f"{task.split}:{index}" + f":{key}" * (key != images[0]), inside)
            yield Item(index + 1, plain(row), NamedImages(inside))

    @functools.cached_property
    def _builder(self) -> tfds.core.DatasetBuilder:
        try:
            builder = open_prepared(self.name)
        except (FileNotFoundError, ImportError, tfds.core.DatasetNotFoundError) as error:
            raise UsageError(f"{self.name} is no TFDS dataset ({str(error).splitlines()[0]})") from error
        if not Path(builder.data_dir).is_dir():
            raise UsageError(f"{self.name} is not prepared: there is no {builder.data_dir}")
        return builder


def _take(found: bytes | list[bytes], name: str, inside: dict[str, bytes]) -> str | list[str]:
    """Adds an image, or those of a sequence, to those `inside`, and returns what it is called."""
    if not isinstance(found, list):
        inside[name] = found
        return name
    names = [f"{name}:{place}" for place in range(len(found))]
    inside |= zip(names, found, strict=True)
    return names
