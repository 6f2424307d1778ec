"""Sidecars: scores and masks that belong to records, kept in datasets of their own and joined by id."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from mmrpt_jax.data.records import (
    MappedSource,
    PathLike,
    RandomAccess,
    new_directory,
    open_builder,
    open_examples,
    write_examples,
)

FieldType = type[float] | type[int] | type[str]
_FEATURES = {float: np.float32, int: np.int64, str: tfds.features.Text()}


def write_sidecar(
    directory: PathLike,
    name: str,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    fields: Mapping[str, FieldType],
) -> dict[str, int]:
    """Writes rows of ``{"id": text, field: sequence, ...}`` into the new `directory`; returns rows per split.

    Args:
        directory: where to write; must not exist.
        name: the dataset's name.
        splits: rows per split; streamed.
        fields: the type of each field's values. Every value is a sequence of any length (a scalar is written
            as a sequence of one); floats are stored as float32, integers as int64.

    Raises:
        FileExistsError: `directory` exists already.
        EmptyDatasetError: there is no row at all.
        ValueError: a row's fields are not "id" and `fields`, or a value has the wrong type or more than one
            axis.
    """
    features = {"id": tfds.features.Text()}
    features |= {field: tfds.features.Sequence(_FEATURES[kind]) for field, kind in fields.items()}
    pairs = ((split, _encode(row, fields)) for split, rows in splits.items() for row in rows)
    with new_directory(directory) as staging:
        return write_examples(staging, name, tfds.features.FeaturesDict(features), pairs)


def open_sidecar(directory: PathLike, split: str) -> MappedSource[dict[str, Any]]:
    """Opens one split of a sidecar: an id and, per field, a float32 or int64 array ``[n]`` or list of texts.

    Raises:
        FileNotFoundError: `directory` holds no dataset.
        ValueError: the dataset is no sidecar, or has no such split.
    """
    features = open_builder(directory).info.features
    if any(not isinstance(features[field], tfds.features.Sequence) for field in features.keys() - {"id"}):
        raise ValueError(f"{directory} is no sidecar; its fields are {sorted(features)}")
    dtypes = {
        field: None if isinstance(feature.feature, tfds.features.Text) else feature.feature.np_dtype
        for field, feature in features.items()
        if field != "id"
    }
    return MappedSource(open_examples(directory, split), lambda _, example: _decode(example, dtypes))


def join(
    source: RandomAccess[Mapping[str, Any]],
    sidecar: RandomAccess[Mapping[str, Any]],
    *,
    missing: Literal["error", "skip"] = "error",
) -> MappedSource[dict[str, Any]]:
    """Returns `source`, in its order, with each record extended by the sidecar's row of the same id.

    Every id is read once when joining. Rows of the sidecar without a record are ignored.

    Args:
        source: records with an "id".
        sidecar: rows with an "id".
        missing: what happens to a record without a row: an error, or it is left out.

    Raises:
        ValueError: a record has no row and `missing` is "error"; an id comes twice in the sidecar; both sides
            have a field of the same name; `missing` is unknown.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f"missing must be 'error' or 'skip', got {missing!r}")
    rows: dict[str, int] = {}
    for index, key in enumerate(_ids(sidecar)):
        if rows.setdefault(key, index) != index:
            raise ValueError(f"the sidecar has two rows with the id {key!r}")
    matches = []
    for index, key in enumerate(_ids(source)):
        if key in rows:
            matches.append((index, rows[key]))
        elif missing == "error":
            raise ValueError(
                f"the sidecar has no row for the id {key!r}; missing='skip' leaves such records out"
            )
    if matches and (both := (source[0].keys() & sidecar[0].keys()) - {"id"}):
        raise ValueError(f"records and sidecar both have the fields {sorted(both)}")
    return MappedSource(matches, lambda _, match: {**source[match[0]], **sidecar[match[1]]})


def _ids(source: RandomAccess[Mapping[str, Any]]) -> Iterator[str]:
    return (source[index]["id"] for index in range(len(source)))


def _encode(row: Mapping[str, Any], fields: Mapping[str, FieldType]) -> dict[str, Any]:
    if row.keys() != {"id", *fields}:
        raise ValueError(
            f"row {row.get('id')!r} has the fields {sorted(row)}, expected {sorted({'id', *fields})}"
        )
    return {"id": row["id"]} | {field: _values(row, field, kind) for field, kind in fields.items()}


def _values(row: Mapping[str, Any], field: str, kind: FieldType) -> Any:
    if kind is str:
        return [row[field]] if isinstance(row[field], str) else list(row[field])
    values = np.atleast_1d(np.asarray(row[field]))
    if values.ndim != 1:
        raise ValueError(f"row {row['id']!r}: {field!r} has the shape {values.shape}, expected one axis")
    if kind is int and values.size and values.dtype.kind not in "biu":
        raise ValueError(f"row {row['id']!r}: {field!r} holds {values.dtype}, expected integers")
    return values.astype(_FEATURES[kind])


def _decode(example: Mapping[str, Any], dtypes: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": example["id"].decode()}
    for field, dtype in dtypes.items():
        values = example[field]
        row[field] = [text.decode() for text in values] if dtype is None else np.asarray(values, dtype)
    return row
