"""Parquet files."""

import io

import pyarrow as pa
from pyarrow import parquet

from data_prep.adapters import FieldAdapter
from data_prep.sources.parquet import Parquet
from tests.fuzz.harness import check_source, png


def _write(rows: list[dict[str, object]], **options: object) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


_ROWS = [{"image": {"bytes": png(i), "path": f"{i}.png"}, "t": f"text {i}", "n": [i]} for i in range(5)]
SEEDS = [
    _write(_ROWS, row_group_size=2),
    _write(_ROWS, compression="zstd"),
    _write(_ROWS, compression="none"),
]


def fuzz_one(data: bytes) -> None:
    """Every row is a record or a reject, as far as the file is whole."""
    make = FieldAdapter(caption_field="t")
    check_source({"x.parquet": data}, lambda folder: Parquet((folder / "x.parquet",)), make)
