"""The files of a TFDS dataset in ArrayRecord: shards, each written and read alone, and the metadata that joins them.

Nothing here needs TensorFlow. Shards can be written by many processes; the metadata is written once, at the end.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import tensorflow_datasets as tfds
from array_record.python import array_record_module

_READ_AT_ONCE = 16


class ShardWriter:
    """Writes one ArrayRecord file of examples; a context manager.

    Attributes:
        path: the file.
        examples: number of examples so far.
        bytes: their serialised size.

    Raises:
        OSError: the file cannot be written; names it.
    """

    def __init__(self, path: Path, features: tfds.features.FeaturesDict):
        self.path = path
        self.examples = self.bytes = 0
        self._features = features
        self._serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
        # Groups of one example, so that random access never unpacks a neighbour.
        self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, example: Mapping[str, Any]) -> None:
        """Appends an example."""
        message = self._serializer.get_tf_example(self._features.encode_example(example))
        # The fields of an example are a map, which otherwise has another order in every process.
        self.add_serialized(message.SerializeToString(deterministic=True))

    def add_serialized(self, data: bytes) -> None:
        """Appends an example as `read_shard` yields it."""
        try:
            self._writer.write(data)
        except RuntimeError as error:
            raise OSError(f"cannot write {self.path}: {error}") from error
        self.examples += 1
        self.bytes += len(data)

    def close(self) -> None:
        """Finishes the file; closing twice is fine."""
        if self._writer.is_open():
            try:
                self._writer.close()
            except RuntimeError as error:
                raise OSError(f"cannot write {self.path}: {error}") from error


def read_shard(path: Path) -> Iterator[bytes]:
    """Yields the serialised examples of one ArrayRecord file, in order."""
    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        for start in range(0, reader.num_records(), _READ_AT_ONCE):
            yield from reader.read(start, min(start + _READ_AT_ONCE, reader.num_records()))
    finally:
        reader.close()


def shard_path(directory: Path, name: str, split: str, index: int) -> Path:
    """Where TFDS looks for shard number `index` of a split of the dataset `name`."""
    return Path(_template(directory, name, split).sharded_filepath(shard_index=index, num_shards=None))


def write_info(
    directory: Path,
    name: str,
    features: tfds.features.FeaturesDict,
    shards: Mapping[str, Sequence[tuple[int, int]]],
) -> None:
    """Writes the metadata of a dataset whose shards are in place.

    Args:
        directory: where the shards are.
        name: the dataset's name.
        features: its features.
        shards: per split, the (examples, serialised bytes) of every shard.
    """
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=os.fspath(directory), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format("array_record")
    info.set_splits(
        tfds.core.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[examples for examples, _ in sizes],
                    num_bytes=sum(size for _, size in sizes),
                    filename_template=_template(directory, name, split),
                )
                for split, sizes in shards.items()
            ]
        )
    )
    info.write_to_directory(os.fspath(directory))


def _template(directory: Path, name: str, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        dataset_name=name,
        data_dir=directory,
        split=split,
        filetype_suffix="array_record",
        # The number of shards is not in the names: it is known only when all are written.
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
