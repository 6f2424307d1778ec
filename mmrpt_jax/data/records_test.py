import io
import json
import weakref

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mmrpt_jax.data import records
from mmrpt_jax.data.manifest import DamagedDatasetError
from mmrpt_jax.data.pipeline import make_dataset
from mmrpt_jax.data.records import (
    EmptyDatasetError,
    Record,
    new_directory,
    open_records,
    write_examples,
    write_records,
)


def encode(color, file_format="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (5, 4), color).save(buffer, file_format)
    return buffer.getvalue()


def make_record(index, **changes):
    return Record(
        id=f"r{index}",
        images=[encode((index, 2, 3))],
        captions=[f"caption {index}"],
        qa=[],
        group=f"g{index // 2}",
        extra="{}",
    ) | Record(**changes)


VARIED = [
    make_record(
        0, captions=["Zwölf Äpfel 🍎 on a table", "two\nlines"], extra=json.dumps({"licence": "CC BY"})
    ),
    make_record(
        1, captions=[], qa=[{"question": "what?", "answer": "é"}, {"question": "where?", "answer": "here"}]
    ),
    make_record(2, images=[encode((9, 9, 9), "JPEG"), encode((1, 2, 3, 4), mode="RGBA")]),
    make_record(3, images=[]),
    # What is no image, no text, or nothing; zeros at the end are where arrays of bytes would lose some.
    make_record(4, images=[b"\x00not an image\xff", bytes(range(256)), b"", b"x\x00\x00"], captions=[""]),
]


def test_records_come_back_as_they_were(tmp_path):
    counts = write_records(tmp_path / "set", "varied", {"train": VARIED, "dev": VARIED[:2]})
    assert counts == {"train": 5, "dev": 2}
    assert list(open_records(tmp_path / "set", "train")) == VARIED
    assert list(open_records(tmp_path / "set", "dev")) == VARIED[:2]


def test_order_holds_across_shards_and_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "EXAMPLES_PER_SHARD", 7)
    write_records(tmp_path / "set", "many", {"train": (make_record(index) for index in range(40))})
    assert len(list((tmp_path / "set").glob("*array_record*"))) == 6
    source = open_records(tmp_path / "set", "train")
    assert [record["id"] for record in source] == [f"r{index}" for index in range(40)]
    assert source[-1]["id"] == "r39"
    with pytest.raises(IndexError):
        source[40]
    assert [record["id"] for record in open_records(tmp_path / "set", "train[5:8]")] == ["r5", "r6", "r7"]


def test_any_tfds_reader_sees_the_pixels(tmp_path):
    write_records(tmp_path / "set", "pixels", {"train": [make_record(7)]})
    example = tfds.builder_from_directory(tmp_path / "set").as_data_source("train")[0]
    np.testing.assert_array_equal(example["images"], np.full((1, 4, 5, 3), [7, 2, 3]))


def test_grain_reads_records(tmp_path):
    write_records(tmp_path / "set", "varied", {"train": VARIED})
    batch = make_dataset(open_records(tmp_path / "set", "train"), seed=0, batch_size=5, shuffle=False)[0]
    assert batch["id"] == ["r0", "r1", "r2", "r3", "r4"]
    assert batch["images"] == [record["images"] for record in VARIED]


def test_writing_streams(tmp_path):
    class Tracked(dict):
        __hash__ = object.__hash__

    alive = weakref.WeakSet()
    counts = []

    def stream():
        for index in range(300):
            record = Tracked(make_record(index))
            alive.add(record)
            counts.append(len(alive))
            yield record

    write_records(tmp_path / "set", "stream", {"train": stream()})
    assert len(counts) == 300
    assert max(counts) < 100


def test_failure_leaves_nothing_behind(tmp_path):
    def broken():
        yield from (make_record(index) for index in range(30))
        raise RuntimeError("source failed")

    with pytest.raises(RuntimeError, match="source failed"):
        write_records(tmp_path / "set", "broken", {"train": broken()})
    assert list(tmp_path.iterdir()) == []


def test_existing_directory_is_not_touched(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match="already exists"):
        write_records(tmp_path / "set", "again", {"train": VARIED})
    assert list((tmp_path / "set").iterdir()) == []


def test_new_directory_takes_its_name_last(tmp_path):
    with new_directory(tmp_path / "a" / "b") as staging:
        (staging / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "file").read_text() == "x"


def test_unfit_input_is_named(tmp_path):
    with pytest.raises(EmptyDatasetError, match="'none' has no examples"):
        write_records(tmp_path / "set", "none", {"train": []})
    with pytest.raises(ValueError, match="record 'r1' has the fields"):
        write_records(tmp_path / "set", "fields", {"train": [make_record(1) | {"score": 1.0}]})
    with pytest.raises(ValueError, match="split name 'train-2' must be"):
        write_records(tmp_path / "set", "name", {"train-2": VARIED})
    with pytest.raises(ValueError, match="dataset name 'a-b' must be"):
        write_records(tmp_path / "set", "a-b", {"train": VARIED})
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json"):
        open_records(tmp_path, "train")
    write_records(tmp_path / "set", "varied", {"train": VARIED})
    with pytest.raises(ValueError, match="dev"):
        open_records(tmp_path / "set", "dev")


def test_a_dataset_of_other_fields_is_refused(tmp_path):
    # As records were when they had one image.
    features = tfds.features.FeaturesDict({"id": tfds.features.Text(), "image": tfds.features.Image()})
    write_examples(tmp_path, "foreign", features, [("train", {"id": "a", "image": encode((1, 2, 3))})])
    message = r"whose fields are \['captions', .*\], but \['id', 'image'\]; convert its source again, or open it with"
    with pytest.raises(ValueError, match=message):
        open_records(tmp_path, "train")


def test_a_file_that_was_cut_is_named(tmp_path):
    write_records(tmp_path / "set", "cut", {"train": VARIED})
    shard = tmp_path / "set" / "cut-train.array_record-00000"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DamagedDatasetError, match=r"cut-train\.array_record-00000 has \d+ bytes, manifest"):
        open_records(tmp_path / "set", "train")
