"""Any prepared TFDS dataset of images and text, seen as rows of plain values or as records."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmrpt_jax.data.manifest import PathLike
from mmrpt_jax.data.records import KeepEncoded, MappedSource, Record, open_builder

_MEDIA = (tfds.features.Image, tfds.features.Video, tfds.features.Audio)


def open_prepared(name_or_directory: PathLike) -> tfds.core.DatasetBuilder:
    """Returns the builder of a dataset's directory, or of its name in the TFDS data directory."""
    directory = Path(name_or_directory)
    return open_builder(directory) if directory.is_dir() else tfds.builder(os.fspath(name_or_directory))


def open_rows(builder: tfds.core.DatasetBuilder, split: str) -> MappedSource[dict[str, Any]]:
    """Opens one split as mappings from field to JSON value; class labels are names, media are encoded.

    A medium is bytes, a sequence of media a list of bytes.

    Raises:
        ValueError: the dataset has no such split.
    """
    features = builder.info.features
    skip = {key: KeepEncoded() for key in features if _holds_media(features[key])}

    def value(key: str, found: Any) -> Any:
        if isinstance(features[key], tfds.features.ClassLabel):
            return features[key].int2str(int(found))
        return found if key in skip else plain(found)

    def to_row(_: int, example: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value(key, found) for key, found in example.items()}

    return MappedSource(builder.as_data_source(split, decoders=skip or None), to_row)


def open_tfds(
    name_or_directory: PathLike, split: str, *, image_field: str, text_field: str, id_field: str | None = None
) -> MappedSource[Record]:
    """Opens any prepared TFDS dataset of images and text as records.

    Args:
        name_or_directory: a dataset's directory, or its name in the TFDS data directory; stored as
            ArrayRecord.
        split: the split, or a TFDS slice of one.
        image_field: the field with the image, or with a sequence of images.
        text_field: the field with the captions: a text, a class label, or a sequence of texts;
            ``"captions/text"`` names a field within a sequence.
        id_field: the field with the id; without it, ids are ``"{split}:{index}"``.

    Returns:
        Records without questions; every record is its own group; other text and number fields are in `extra`.
    """
    builder = open_prepared(name_or_directory)
    features = builder.info.features
    for field in (image_field, text_field, id_field):
        if field is not None and field.partition("/")[0] not in features:
            raise ValueError(f"{name_or_directory} has no field {field!r}; it has {sorted(features)}")
    used = {image_field, text_field, id_field} | {key for key in features if _holds_media(features[key])}

    def to_record(index: int, row: dict[str, Any]) -> Record:
        text: Any = row
        for key in text_field.split("/"):
            text = text[key]
        record_id = f"{split}:{index}" if id_field is None else str(row[id_field])
        rest = {key: row[key] for key in row if key not in used}
        return Record(
            id=record_id,
            images=_as_list(row[image_field]),
            captions=_texts(text),
            qa=[],
            group=record_id,
            extra=json.dumps({key: value for key, value in plain(rest).items() if value is not None}),
        )

    return MappedSource(open_rows(builder, split), to_record)


def holds_images(feature: tfds.features.FeatureConnector) -> bool:
    """Whether a field is an image or a sequence of images."""
    return isinstance(feature, tfds.features.Image) or (
        isinstance(feature, tfds.features.Sequence) and isinstance(feature.feature, tfds.features.Image)
    )


def plain(value: Any) -> Any:
    """Turns arrays, bytes and their nests into JSON values; what is none, such as other media, becomes None."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
        if isinstance(value, bytes):
            return plain(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _holds_media(feature: tfds.features.FeatureConnector) -> bool:
    return isinstance(feature, _MEDIA) or holds_images(feature)


def _as_list(value: bytes | list[bytes]) -> list[bytes]:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> list[str]:
    """Flattens a text or (nested) sequence of texts."""
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [] if value is None else [str(value)]
