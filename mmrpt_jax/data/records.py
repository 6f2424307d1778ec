"""The record format: images with captions and questions, as TFDS datasets stored in ArrayRecord.

Nothing here needs TensorFlow, neither to write nor to read. A record's image is its encoded file, byte for
byte as it came.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import tensorflow_datasets as tfds

PathLike = str | os.PathLike[str]
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class QuestionAnswer(TypedDict):
    """One question about the image, with its answer."""

    question: str
    answer: str


class Record(TypedDict):
    """One image and what is said about it."""

    id: str  # unique in the dataset; sidecars are joined by it
    image: bytes  # the encoded file
    captions: list[str]  # may be empty where there are questions
    qa: list[QuestionAnswer]  # may be empty where there are captions
    group: str  # records of one group never lie in two splits
    extra: str  # JSON object of all other fields of the source


RECORD_FEATURES = tfds.features.FeaturesDict(
    {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(None, None, None)),
        "captions": tfds.features.Sequence(tfds.features.Text()),
        "qa": tfds.features.Sequence({"question": tfds.features.Text(), "answer": tfds.features.Text()}),
        "group": tfds.features.Text(),
        "extra": tfds.features.Text(),
    }
)
EXAMPLES_PER_SHARD = 4096
_EXAMPLES_PER_METADATA_UPDATE = 32
_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


class EmptyDatasetError(ValueError):
    """There was nothing to write."""


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
    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version("1.0.0"), data_dir=os.fspath(directory), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, EXAMPLES_PER_SHARD, file_format="array_record")
    counts: dict[str, int] = {}
    examples = iter(examples)
    # The writer rewrites the dataset's metadata at every call, so examples are handed over a few at a time.
    while chunk := list(itertools.islice(examples, _EXAMPLES_PER_METADATA_UPDATE)):
        by_split: dict[str, list[Mapping[str, Any]]] = {}
        for split, example in chunk:
            by_split.setdefault(split, []).append(example)
        for split in [split for split in by_split if split not in counts]:
            _check_name("split", split)
            writer.initialize_splits([split])
        writer.add_examples(by_split)
        for split, batch in by_split.items():
            counts[split] = counts.get(split, 0) + len(batch)
    writer.close_all()
    if not counts:
        raise EmptyDatasetError(f"dataset {name!r} has no examples; nothing was written")
    return counts


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


def open_records(directory: PathLike, split: str) -> MappedSource[Record]:
    """Opens one split of a dataset of records for random access; images stay encoded.

    Raises:
        FileNotFoundError: `directory` holds no dataset.
        ValueError: the dataset is not one of records, or has no such split.
    """
    builder = open_builder(directory)
    if builder.info.features.keys() != RECORD_FEATURES.keys():
        raise ValueError(
            f"{directory} does not hold records but {sorted(builder.info.features)}; open it with open_tfds"
        )
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return MappedSource(source, lambda _, example: _to_record(example))


def open_tfds(
    name_or_directory: PathLike, split: str, *, image_field: str, text_field: str, id_field: str | None = None
) -> MappedSource[Record]:
    """Opens any prepared TFDS dataset of images and text as records.

    Args:
        name_or_directory: a dataset's directory, or its name in the TFDS data directory; stored as
            ArrayRecord.
        split: the split, or a TFDS slice of one.
        image_field: the field with the image.
        text_field: the field with the captions: a text, a class label, or a sequence of texts;
            ``"captions/text"`` names a field within a sequence.
        id_field: the field with the id; without it, ids are ``"{split}:{index}"``.

    Returns:
        Records without questions; every record is its own group; other text and number fields are in `extra`.
    """
    directory = Path(name_or_directory)
    builder = open_builder(directory) if directory.is_dir() else tfds.builder(os.fspath(name_or_directory))
    features = builder.info.features
    for field in (image_field, text_field, id_field):
        if field is not None and field.partition("/")[0] not in features:
            raise ValueError(f"{name_or_directory} has no field {field!r}; it has {sorted(features)}")
    media = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)
    skip = {key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], media)}
    label = None if "/" in text_field else features[text_field]

    def to_record(index: int, example: dict[str, Any]) -> Record:
        text = example[text_field.partition("/")[0]]
        for key in text_field.split("/")[1:]:
            text = text[key]
        if isinstance(label, tfds.features.ClassLabel):
            text = label.int2str(int(text))
        record_id = f"{split}:{index}" if id_field is None else str(_plain(example[id_field]))
        rest = {
            key: _plain(value)
            for key, value in example.items()
            if key not in (image_field, text_field, id_field)
        }
        return Record(
            id=record_id,
            image=example[image_field],
            captions=_texts(_plain(text)),
            qa=[],
            group=record_id,
            extra=json.dumps({key: value for key, value in rest.items() if value is not None}),
        )

    return MappedSource(builder.as_data_source(split, decoders=skip or None), to_record)


def _checked(record: Record) -> Record:
    if record.keys() != RECORD_FEATURES.keys():
        raise ValueError(
            f"record {record.get('id')!r} has the fields {sorted(record)}, expected {sorted(RECORD_FEATURES)}"
        )
    return record


def _to_record(example: Mapping[str, Any]) -> Record:
    pairs = zip(example["qa"]["question"], example["qa"]["answer"], strict=True)
    return Record(
        id=example["id"].decode(),
        image=example["image"],
        captions=[caption.decode() for caption in example["captions"]],
        qa=[QuestionAnswer(question=question.decode(), answer=answer.decode()) for question, answer in pairs],
        group=example["group"].decode(),
        extra=example["extra"].decode(),
    )


def _plain(value: Any) -> Any:
    """Turns what TFDS returns into JSON values; bytes that are not UTF-8 (other media) become None."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _texts(value: Any) -> list[str]:
    """Flattens a text or (nested) sequence of texts."""
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [] if value is None else [str(value)]


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} name {name!r} must be letters, digits and underscores, beginning with a letter"
        )
