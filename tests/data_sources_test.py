"""Every format that the converter reads, from files as others write them to records."""

import base64
import collections
import csv
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from pyarrow import parquet

from data_prep.names import shard_split
from data_prep.sources.detect import detect, expand
from mmrpt_jax.data.records import open_records, write_examples
from mmrpt_jax.reporting.command_line import UsageError
from tests.data_folders import add_member, encode, rejects, run

PNG = [encode((i, 2, 3)) for i in range(8)]


def reasons(output):
    return dict(collections.Counter(entry["reason"] for entry in rejects(output)))


def by_id(output, split="train"):
    return {record["id"]: record for record in open_records(output, split)}


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            add_member(archive, name, data)


def test_webdataset_samples_are_neighbours_of_one_key(tmp_path):
    (tmp_path / "in").mkdir()
    first = [
        ("a/001.jpg", PNG[0]),
        ("a/001.txt", " one é\n".encode()),
        ("a/001.json", b'{"licence": "CC", "image": "http://elsewhere"}'),
        ("a/001.cls", b"7"),
        ("a/001.embedding.npy", b"\x93NUMPY\xff"),
        ("a/002.txt", b"no image"),
        ("a/003.right.png", PNG[1]),
        ("a/003.txt", b"three"),
        ("a/004.png", PNG[2]),
        ("a/004.json", b"{"),
    ]
    write_tar(tmp_path / "in" / "train-0000.tar", first)
    write_tar(tmp_path / "in" / "train-0001.tar", [("b.webp", PNG[3]), ("b.txt", b"b"), ("../c.jpg", PNG[4])])
    (tmp_path / "in" / "train-0002.tar").write_bytes(b"no archive" * 100)
    assert run(tmp_path / "in", tmp_path / "out") == 0
    records = by_id(tmp_path / "out")
    assert list(records) == ["a/001", "a/003", "b"]
    assert records["a/001"]["captions"] == ["one é"]
    assert records["a/001"]["images"] == [PNG[0]]
    extra = json.loads(records["a/001"]["extra"])
    assert (extra["licence"], extra["cls"]) == ("CC", "7") and "embedding.npy" not in extra
    assert records["a/003"]["images"] == [PNG[1]]
    assert reasons(tmp_path / "out") == {
        "missing key": 1,
        "invalid JSON": 1,
        "unsafe tar member": 1,
        "damaged tar": 1,
    }


def test_webdataset_shards_by_braces_and_splits_by_name(tmp_path):
    for name in ("train-0", "train-1", "train-2", "val-0"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", PNG[0]), (f"{name}.json", b'{"says": "x"}')])
    assert run(tmp_path / "{train,val}-{0..1}.tar", tmp_path / "out", "--caption_field=says", "--name=w") == 0
    assert [len(open_records(tmp_path / "out", split)) for split in ("train", "val")] == [2, 1]


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_parquet_with_images_inside(tmp_path):
    rows = [
        {"image": {"bytes": PNG[i], "path": None}, "text": f"caption {i}", "score": i / 2} for i in range(7)
    ]
    rows[3]["image"]["bytes"] = b"junk"
    rows[4]["text"] = None
    schema = pa.schema([("image", IMAGE), ("text", pa.string()), ("score", pa.float64())])
    table = pa.Table.from_pylist(rows, schema)
    parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    flags = ["--caption_field=text", "--rows_per_shard=3", "--name=p"]
    assert run(tmp_path / "*.parquet", tmp_path / "out", *flags) == 0
    records = list(open_records(tmp_path / "out", "train"))
    assert [record["captions"][0] for record in records] == [f"caption {i}" for i in (0, 1, 2, 5, 6)]
    assert [record["images"] for record in records] == [[PNG[i]] for i in (0, 1, 2, 5, 6)]
    assert json.loads(records[1]["extra"]) == {"score": 0.5}
    assert [(entry["line"], entry["reason"]) for entry in rejects(tmp_path / "out")] == [
        (4, "unreadable image"),
        (5, "wrong type"),
    ]
    # Row groups of 2, 2, 2 and 1 rows make tasks of 4 and 3 rows.
    assert len(list((tmp_path / "out").glob("p-train*"))) == 2


def test_parquet_with_raw_bytes_and_nested_texts(tmp_path):
    table = pa.table({"picture": [PNG[0]], "meta": [{"caption": ["a", "b"], "n": 1}]})
    parquet.write_table(table, tmp_path / "x.parquet")
    flags = ["--image_field=picture", "--caption_field=meta/caption"]
    assert run(tmp_path / "x.parquet", tmp_path / "out", *flags) == 0
    (record,) = open_records(tmp_path / "out", "x")
    assert (record["captions"], record["images"]) == (["a", "b"], [PNG[0]])


def test_parquet_with_texts_in_binary_columns(tmp_path):
    table = pa.table({"picture": [PNG[0]], "text": [[b"a red circle", b"two"]], "name": [b"seven"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    flags = ["--image_field=picture", "--caption_field=text", "--id_field=name"]
    assert run(tmp_path / "x.parquet", tmp_path / "out", *flags) == 0
    (record,) = open_records(tmp_path / "out", "x")
    assert (record["captions"], record["id"]) == (["a red circle", "two"], "seven")
    assert record["images"] == [PNG[0]]


def test_parquet_with_lists_of_images(tmp_path):
    rows = [
        {"images": [{"bytes": PNG[i], "path": path} for i, path in row], "text": "x", "key": key}
        for key, row in enumerate([[(0, "a.png"), (1, "b.png")], [(2, "c.png"), (3, "c.png")], []])
    ]
    schema = pa.schema([("images", pa.list_(IMAGE)), ("text", pa.string()), ("key", pa.int64())])
    parquet.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "x.parquet")
    flags = ["--image_field=images", "--caption_field=text", "--id_field=key"]
    assert run(tmp_path / "x.parquet", tmp_path / "out", *flags) == 0
    found = [record["images"] for record in open_records(tmp_path / "out", "x")]
    # Two images of one name are two images.
    assert found == [[PNG[0], PNG[1]], [PNG[2], PNG[3]], []]


def test_parquet_with_paths_stays_in_its_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.png").write_bytes(PNG[1])
    (tmp_path / "secret.png").write_bytes(PNG[2])
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    names = [
        "1.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "circle.png",
        "2.png",
        "a" * 300,
        "a\0",
    ]
    rows = [{"image": {"bytes": None, "path": name}, "text": "x"} for name in names]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    flags = ["--caption_field=text", f"--images={folder}"]
    assert run(tmp_path / "train.parquet", tmp_path / "out", *flags) == 0
    assert list(by_id(tmp_path / "out")) == ["1.png"]
    assert reasons(tmp_path / "out") == {"unsafe path": 3, "missing image": 4}


def test_damaged_parquet_is_listed_and_the_others_are_read(tmp_path):
    rows = [{"image": {"bytes": PNG[0], "path": "1.png"}, "text": "x" * 200}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train-0.parquet")
    (tmp_path / "train-1.parquet").write_bytes((tmp_path / "train-0.parquet").read_bytes()[:-30])
    (tmp_path / "train-2.parquet").write_bytes(b"")
    assert run(tmp_path / "*.parquet", tmp_path / "out", "--caption_field=text", "--name=p") == 0
    assert reasons(tmp_path / "out") == {"damaged parquet": 2}


COCO = {
    "info": {"year": 2017, "nested": [[1], {"images": []}]},
    "images": [
        {"id": 7, "file_name": "7.png", "width": 6, "license": 1},
        {"id": 8, "file_name": "8.png"},
        {"id": 9, "file_name": "../9.png"},
        {"id": 10},
        {"id": 11, "file_name": "11.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 8, "caption": "eight"},
        {"id": 2, "image_id": 7, "caption": "seven, first"},
        {"id": 3, "image_id": 99, "caption": "lost"},
        {"id": 4, "image_id": 7, "caption": "seven, second"},
        {"id": 5, "image_id": 8, "caption": 5},
        {"id": 6, "image_id": 9, "caption": "nine"},
        {"id": 7, "image_id": 8},
    ],
}


@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
def test_coco_brings_captions_to_their_images(tmp_path, order):
    (tmp_path / "train2017").mkdir()
    for name in (7, 8, 11):
        (tmp_path / "train2017" / f"{name}.png").write_bytes(PNG[name % 8])
    content = {"info": COCO["info"]} | {key: COCO[key] for key in order}
    (tmp_path / "captions_train2017.json").write_text(json.dumps(content, indent=1))
    assert run(tmp_path / "captions_train2017.json", tmp_path / "out", "--rows_per_shard=1") == 0
    records = by_id(tmp_path / "out")
    assert list(records) == ["7"]
    assert records["7"]["captions"] == ["seven, first", "seven, second"]
    assert json.loads(records["7"]["extra"]) == {"width": 6, "license": 1}
    assert reasons(tmp_path / "out") == {
        "missing key": 2,
        "unknown image": 1,
        "wrong type": 1,
        "unsafe path": 1,
        "no caption or question": 1,
    }


def test_a_cut_coco_file_keeps_what_is_before_the_cut(tmp_path):
    text = json.dumps(
        {"annotations": [{"image_id": 7, "caption": "x"}], "images": [{"id": 7, "file_name": "7.png"}]}
    )
    (tmp_path / "train.json").write_text(text[:-1])
    (tmp_path / "7.png").write_bytes(PNG[0])
    assert run(tmp_path / "train.json", tmp_path / "out", f"--images={tmp_path}") == 0
    assert list(by_id(tmp_path / "out")) == ["7"]
    assert reasons(tmp_path / "out") == {"invalid JSON": 1}


def write_tsv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_tsv_of_vlmevalkit(tmp_path):
    pictures = [base64.b64encode(data).decode() for data in PNG]
    rows = [
        {"index": "1", "image": pictures[1], "question": 'two\nlines, "quoted"\tand a tab', "answer": "A"}
        | {"A": "yes", "B": "no", "hint": "look", "category": "x"},
        {"index": "2", "image": "4", "question": "whose image?", "answer": "four's"},
        {"index": "3", "image": "77", "question": "q", "answer": "a"},
        {"index": "4", "image": pictures[4], "question": "q", "answer": "a"},
        {"index": "5", "image": "2", "question": "q", "answer": "a"},
        {"index": "6", "image": "!" * 100, "question": "q", "answer": "a"},
        {"index": "7", "image": "1", "question": "another\n\nthing", "answer": "a"},
    ]
    write_tsv(tmp_path / "MMBench.tsv", rows)
    assert run(tmp_path / "MMBench.tsv", tmp_path / "out", "--rows_per_shard=2") == 0
    records = by_id(tmp_path / "out", "MMBench")
    assert list(records) == ["1", "2", "4", "7"]
    assert records["1"]["qa"] == [
        {"question": 'look\ntwo\nlines, "quoted"\tand a tab\nA. yes\nB. no', "answer": "A"}
    ]
    assert json.loads(records["1"]["extra"]) == {"category": "x"}
    assert [records[index]["images"] for index in "1247"] == [[PNG[1]], [PNG[4]], [PNG[4]], [PNG[1]]]
    assert [records[index]["group"] for index in "1247"] == ["1", "4", "4", "1"]
    assert [(entry["line"], entry["reason"]) for entry in rejects(tmp_path / "out")] == [
        (3, "missing image"),
        (5, "missing image"),
        (6, "unreadable image"),
    ]


def test_tsv_with_damaged_rows_and_images_in_a_folder(tmp_path):
    (tmp_path / "1.png").write_bytes(PNG[0])
    lines = [
        b"index\timage_path\tquestion\tanswer",
        b"1\t1.png\tq\ta",
        b"2\t1.png\tq",
        b"3\t1.png\t\xff\ta",
        b"",
        b'4\t"1',
    ]
    (tmp_path / "t.tsv").write_bytes(b"\n".join(lines))
    assert run(tmp_path / "t.tsv", tmp_path / "out") == 0
    assert list(by_id(tmp_path / "out", "t")) == ["1"]
    assert [(entry["line"], entry["reason"]) for entry in rejects(tmp_path / "out")] == [
        (2, "wrong number of columns"),
        (3, "invalid UTF-8"),
        (4, "line too long"),
    ]


def test_tfds(tmp_path):
    features = tfds.features.FeaturesDict(
        {
            "picture": tfds.features.Image(),
            "key": np.int64,
            "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
    )
    examples = [
        (split, {"picture": PNG[i], "key": i, "captions": [{"text": f"{split} {i}"}], "label": i % 2})
        for split, count in (("train", 5), ("test", 2))
        for i in range(count)
    ]
    (tmp_path / "in").mkdir()
    write_examples(tmp_path / "in", "animals", features, examples)
    flags = ["--image_field=picture", "--caption_field=captions/text", "--rows_per_shard=2"]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    records = by_id(tmp_path / "out")
    assert list(records) == [f"train:{i}" for i in range(5)]
    assert records["train:3"]["images"] == [PNG[3]]
    assert json.loads(records["train:3"]["extra"])["label"] == "dog"
    assert by_id(tmp_path / "out", "test")["test:1"]["captions"] == ["test 1"]


def test_tfds_with_sequences_of_images(tmp_path):
    image = tfds.features.Image()
    features = tfds.features.FeaturesDict(
        {"frames": tfds.features.Sequence(image), "key": np.int64, "text": tfds.features.Text()}
    )
    examples = [
        ("train", {"frames": [PNG[i] for i in frames], "key": key, "text": "x"})
        for key, frames in enumerate([(0, 1), (), (2,)])
    ]
    (tmp_path / "in").mkdir()
    write_examples(tmp_path / "in", "films", features, examples)
    flags = ["--image_field=frames", "--caption_field=text", "--id_field=key"]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    found = [record["images"] for record in open_records(tmp_path / "out", "train")]
    assert found == [[PNG[0], PNG[1]], [], [PNG[2]]]


def test_formats_are_told_apart(tmp_path):
    for folder, names in {
        "a": ["x.parquet"],
        "b": ["x.tar"],
        "c": ["x.tsv", "x.tar"],
        "d": ["x.jsonl", "x_images.tar"],
        "e": ["dataset_info.json", "y.tar"],
        "f": [],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    assert [detect(str(tmp_path / folder)) for folder in "abde"] == ["parquet", "webdataset", "jsonl", "tfds"]
    with pytest.raises(UsageError, match="could be tsv or webdataset; say which with --format"):
        detect(str(tmp_path / "c"))
    with pytest.raises(UsageError, match="nor one of a known format"):
        detect(str(tmp_path / "f"))
    with pytest.raises(UsageError, match="is not a folder, and no file has this name"):
        detect(str(tmp_path / "nothing-{0..3}.tar"))


def test_patterns_expand_as_in_a_shell(tmp_path):
    for name in ("a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar", "b-10.tar", "[c].tar"):
        (tmp_path / name).touch()

    def names(pattern):
        return [path.name for path in expand(str(tmp_path / pattern))]

    assert names("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert names("{a,b}-1?.tar") == ["a-10.tar", "a-11.tar", "b-10.tar"]
    assert names("{a,b}-{10..11}.tar") == ["a-10.tar", "a-11.tar", "b-10.tar"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("validation-00001-of-00002.parquet", "validation"),
        ("00012.tar", "train"),
        ("cc3m-train-0012.tar", "cc3m_train"),
        ("train2017.json", "train"),
        ("MMBench_DEV.tsv", "MMBench_DEV"),
    ],
)
def test_the_name_of_a_shard_tells_its_split(tmp_path, name, split):
    assert shard_split(tmp_path / name) == split


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=tfds", "--caption_field=x"], "is no TFDS dataset"),
        (["--images=nowhere"], "--images is for parquet, coco and tsv"),
        (["--format=parquet"], "there is no *.parquet file"),
        (["--id_field=x"], "--id_field says nothing about texts"),
    ],
)
def test_unusable_flags_give_one_sentence(tmp_path, capsys, flags, message):
    write_tar(tmp_path / "a.tar", [])
    assert run(tmp_path, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
