"""The record format: images with captions and questions, as TFDS datasets stored in ArrayRecord.

Nothing here needs TensorFlow, neither to write nor to read. A record's images are their encoded files, byte for
byte as they came.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import tensorflow_datasets as tfds

from mmrpt_jax.data.manifest import PathLike, describe_file, verify, write_manifest
from mmrpt_jax.data.shards import ShardWriter, shard_path, write_info

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class QuestionAnswer(TypedDict):
    """One question about the images, with its answer."""

    question: str
    answer: str


class Record(TypedDict):
    """Images and what is said about them."""

    id: str  # unique in the dataset; sidecars are joined by it
    images: list[bytes]  # the encoded files, in reading order; may be empty
    captions: list[str]  # may be empty where there are questions
    qa: list[QuestionAnswer]  # may be empty where there are captions
    group: str  # records of one group never lie in two splits
    extra: str  # JSON object of all other fields of the source


RECORD_FEATURES = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(),
        "images": tfds.features.Sequence(tfds.features.Image(shape=(None, None, None))),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "qa": tfds.features.Sequence({"question": tfds.features.Text(), "answer": tfds.features.Text()}),
        "group": tfds.features.Text(),
        "extra": tfds.features.Text(),
    }
)
EXAMPLES_PER_SHARD = 4096
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


class EmptyDatasetError(ValueError):
    """There was nothing to write."""


class RecordError(ValueError):
    """A record cannot be read back; the message is one sentence."""


class KeepEncoded(tfds.decode.SkipDecoding):
    """Hands media over as they are stored, those in a sequence too."""

    # TFDS skips the decoding of sequences in TensorFlow only.
    def decode_batch_example_np(self, serialized_example: Iterable[bytes]) -> list[bytes]:
        """The encoded elements of a sequence."""
        return list(serialized_example)


class RandomAccess(Protocol[T_co]):
    """Anything with a length and integer indexing; what Grain reads from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


@dataclasses.dataclass(frozen=True)
class MappedSource(Sequence[T], Generic[T]):
    """A random-access view of `source` with `function(index, example)` applied at each read."""

    source: RandomAccess[Any]
    function: Callable[[int, Any], T]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> T:  # type: ignore[override]
        index = range(len(self))[index]
        return self.function(index, self.source[index])


@contextlib.contextmanager
def new_directory(directory: PathLike) -> Iterator[Path]:
    """Yields an empty directory beside `directory` that takes its name on success and is removed on failure.

    So `directory` either does not exist or is complete, whenever the process is stopped.

    Raises:
        FileExistsError: `directory` exists already.
    """
    target = Path(directory).absolute()
    if target.exists():
        raise FileExistsError(f"{target} already exists; remove it or choose another directory")
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_examples(
    directory: Path,
    name: str,
    features: tfds.features.FeaturesDict,
    examples: Iterable[tuple[str, Mapping[str, Any]]],
) -> dict[str, int]:
    """Streams (split, example) pairs into an empty directory as a TFDS dataset; returns examples per split.

    Memory does not grow with the number of examples; their order is kept.

    Raises:
        EmptyDatasetError: no example came.
        ValueError: a name is not made of letters, digits and underscores.
    """
    _check_name("dataset", name)
    shards: dict[str, list[ShardWriter]] = {}
    with contextlib.ExitStack() as opened:
        for split, example in examples:
            if split not in shards:
                _check_name("split", split)
                shards[split] = []
            if not shards[split] or shards[split][-1].examples == EXAMPLES_PER_SHARD:
                if shards[split]:
                    shards[split][-1].close()
                path = shard_path(directory, name, split, len(shards[split]))
                shards[split].append(opened.enter_context(ShardWriter(path, features)))
            shards[split][-1].add(example)
    if not shards:
        raise EmptyDatasetError(f"dataset {name!r} has no examples; nothing was written")
    sizes = {
        split: [(shard.examples, shard.bytes) for shard in of_split] for split, of_split in shards.items()
    }
    write_info(directory, name, features, sizes)
    lengths = {shard.path.name: shard.examples for of_split in shards.values() for shard in of_split}
    files = {path.name: describe_file(path, lengths.get(path.name)) for path in sorted(directory.iterdir())}
    write_manifest(directory, files)
    return {split: sum(examples for examples, _ in of_split) for split, of_split in sizes.items()}


def write_records(directory: PathLike, name: str, splits: Mapping[str, Iterable[Record]]) -> dict[str, int]:
    """Writes records as the TFDS dataset `name` into the new `directory`; returns records per split.

    Raises:
        FileExistsError: `directory` exists already.
        EmptyDatasetError: there is no record at all.
        ValueError: a record's fields are not those of `Record`, or a name is unfit.
    """
    pairs = ((split, _checked(record)) for split, records in splits.items() for record in records)
    with new_directory(directory) as staging:
        return write_examples(staging, name, RECORD_FEATURES, pairs)


def open_examples(directory: PathLike, split: str, **options: Any) -> RandomAccess[dict[str, Any]]:
    """Opens one split of a TFDS dataset on disk; `options` go to `as_data_source`.

    Raises:
        FileNotFoundError: `directory` holds no dataset.
        ValueError: the dataset has no such split. TFDS's slices (``"train[:10%]"``, ``"train+dev"``) are
            splits too.
    """
    return open_builder(directory).as_data_source(split, **options)


def open_builder(directory: PathLike) -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of the dataset in `directory`; raises FileNotFoundError if there is none."""
    if not Path(directory, "dataset_info.json").is_file():
        raise FileNotFoundError(f"{directory} holds no dataset: it has no dataset_info.json")
    return tfds.builder_from_directory(os.fspath(directory))


def open_records(directory: PathLike, split: str, *, checksums: bool = False) -> MappedSource[Record]:
    """Opens one split of a dataset of records for random access; images stay encoded.

    The files are compared with the manifest first, if there is one: by size and number of records, and with
    `checksums` by content too, for which every file is read once.

    Raises:
        FileNotFoundError: `directory` holds no dataset.
        DamagedDatasetError: a file is missing or is not what was written.
        ValueError: the dataset is not one of records, or has no such split.

    Reading one of them raises `RecordError` if it is damaged.
    """
    builder = open_builder(directory)
    verify(directory, shard_lengths(builder), checksums=checksums)
    if builder.info.features.keys() != RECORD_FEATURES.keys():
        raise ValueError(
            f"{directory} does not hold records, whose fields are {sorted(RECORD_FEATURES)}, but "
            f"{sorted(builder.info.features)}; convert its source again, or open it with open_tfds"
        )
    source = builder.as_data_source(split, decoders={"images": KeepEncoded()})
    return MappedSource(range(len(source)), lambda _, index: _read(source, index, directory))


def shard_lengths(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    """Returns the number of examples in every shard of a dataset, by file name."""
    splits = builder.info.splits.values()
    return {
        name: length
        for split in splits
        for name, length in zip(sorted(split.filenames), split.shard_lengths, strict=True)
    }


def _checked(record: Record) -> Record:
    if record.keys() != RECORD_FEATURES.keys():
        raise ValueError(
            f"record {record.get('id')!r} has the fields {sorted(record)}, expected {sorted(RECORD_FEATURES)}"
        )
    return record


def _read(source: RandomAccess[Mapping[str, Any]], index: int, directory: PathLike) -> Record:
    try:
        return _to_record(source[index])
    # What ArrayRecord raises where a checksum is wrong.
    except RuntimeError as error:
        reason = str(error).partition(";")[0]
        raise RecordError(f"record {index} of {directory} is damaged: {reason}") from error


def _to_record(example: Mapping[str, Any]) -> Record:
    pairs = zip(example["qa"]["question"], example["qa"]["answer"], strict=True)
    return Record(
        id=example["id"].decode(),
        images=example["images"],
        captions=[caption.decode() for caption in example["captions"]],
        qa=[QuestionAnswer(question=question.decode(), answer=answer.decode()) for question, answer in pairs],
        group=example["group"].decode(),
        extra=example["extra"].decode(),
    )


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} name {name!r} must be letters, digits and underscores, beginning with a letter"
        )
