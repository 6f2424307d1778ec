"""The converter and the inspector, from files to records, on good, corrupt and real input."""

import collections
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from data_prep import inspect
from data_prep.splits import make_splitter
from mmrpt_jax.data.images import image_size
from mmrpt_jax.data.records import open_records
from tests.data_folders import add_member, bomb, encode, rejects, run, write_folder

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("MMRPT_DATA", ROOT.parent / "shared" / "data"))


def test_fields_are_mapped_by_flags_and_image_bytes_are_kept(tmp_path):
    images = {"a/1.png": encode(), "2.jpg": encode(file_format="JPEG")}
    rows = [
        {
            "file": "a/1.png",
            "key": 11,
            "text": ["  one ", "two"],
            "q": "what?",
            "a": "it",
            "who": "g",
            "n": [1, None],
        },
        {
            "file": "./2.jpg",
            "key": "x",
            "text": "three",
            "q": ["p?", "q?"],
            "a": ["p", "q"],
            "who": "h",
            "licence": "MIT",
        },
    ]
    write_folder(tmp_path / "in", rows, images)
    flags = [
        "--image_field=file",
        "--id_field=key",
        "--caption_field=text",
        "--question_field=q",
        "--answer_field=a",
    ]
    assert run(tmp_path / "in", tmp_path / "out", *flags, "--group_field=who") == 0
    first, second = open_records(tmp_path / "out", "train")
    assert json.loads(first.pop("extra")) == {"n": [1, None]}
    assert first == {
        "id": "11",
        "images": [images["a/1.png"]],
        "captions": ["one", "two"],
        "qa": [{"question": "what?", "answer": "it"}],
        "group": "g",
    }
    assert second["images"] == [images["2.jpg"]]
    assert [tuple(pair.values()) for pair in second["qa"]] == [("p?", "p"), ("q?", "q")]
    assert json.loads(second["extra"]) == {"licence": "MIT"}
    assert rejects(tmp_path / "out") == []


def test_a_list_of_names_gives_several_images_and_an_empty_one_none(tmp_path):
    rows = [
        {"image": ["2.png", "1.png", "2.png"], "caption": "three"},
        {"image": ["1.png"], "caption": "one"},
        {"image": [], "caption": "nothing to call it by"},
        {"image": ["1.png", "3.png"], "caption": "one is missing"},
        {"image": ["1.png", None], "caption": "no name"},
        {"caption": "no field"},
    ]
    images = {"1.png": encode((1, 1, 1)), "2.png": encode((2, 2, 2))}
    write_folder(tmp_path / "in", rows, images)
    assert run(tmp_path / "in", tmp_path / "out", "--caption_field=caption") == 0
    three, one = open_records(tmp_path / "out", "train")
    assert three["images"] == [images["2.png"], images["1.png"], images["2.png"]]
    assert (three["id"], one["id"], one["images"]) == ("2.png 1.png 2.png", "1.png", [images["1.png"]])
    assert [entry["reason"] for entry in rejects(tmp_path / "out")] == [
        "empty id",
        "missing image",
        "wrong type",
        "missing key",
    ]
    assert run(tmp_path / "in", tmp_path / "named", "--caption_field=caption", "--id_field=caption") == 0
    *_, nothing = open_records(tmp_path / "named", "train")
    assert (nothing["id"], nothing["images"]) == ("nothing to call it by", [])


CORRUPT = [
    ({"image": "good.png", "caption": "kept"}, None),
    (b"{not json", "invalid JSON"),
    (b"[1, 2]", "invalid JSON"),
    (b"[" * 100_000, "invalid JSON"),
    (b'{"image": "good.png", "caption": "\xff\xfe"}', "invalid UTF-8"),
    (b'{"image": "good.png", "caption": "\\ud800"}', "invalid UTF-8"),
    (b"", None),
    ({"caption": "no image"}, "missing key"),
    ({"image": "cut.png"}, "missing key"),
    ({"image": "good.png", "caption": 3}, "wrong type"),
    ({"image": None, "caption": "x"}, "wrong type"),
    ({"image": "good2.png", "caption": " \t"}, "empty caption"),
    ({"image": "good2.png", "caption": ["fine", ""]}, "empty caption"),
    ({"image": "good2.png", "caption": []}, "no caption or question"),
    ({"image": "nowhere.png", "caption": "x"}, "missing image"),
    ({"image": "../evil.png", "caption": "x"}, "missing image"),
    ({"image": "link.png", "caption": "x"}, "missing image"),
    ({"image": "text.png", "caption": "x"}, "unreadable image"),
    ({"image": "cut.png", "caption": "x"}, "unreadable image"),
    ({"image": "empty.png", "caption": "x"}, "unreadable image"),
    ({"image": "bomb.png", "caption": "x"}, "decompression bomb"),
    ({"image": "good.png", "caption": "again"}, "duplicate id"),
    ({"image": "good2.png", "caption": "kept too"}, None),
]


@pytest.fixture
def corrupt(tmp_path):
    """A folder with one row for every reason, and an archive with members that point elsewhere."""
    write_folder(tmp_path / "in", [row for row, _ in CORRUPT], {})
    with tarfile.open(tmp_path / "in" / "train_images.tar", "w") as archive:
        add_member(archive, "dir", type=tarfile.DIRTYPE)
        add_member(archive, "good.png", encode())
        add_member(archive, "../evil.png", encode())
        add_member(archive, str(tmp_path / "absolute.png"), encode())
        add_member(archive, "link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_member(archive, "hard.png", type=tarfile.LNKTYPE, linkname="good.png")
        add_member(archive, "fifo.png", type=tarfile.FIFOTYPE)
        add_member(archive, "text.png", b"I am no image")
        add_member(archive, "cut.png", encode(size=(90, 90))[:-30])
        add_member(archive, "empty.png")
        add_member(archive, "bomb.png", bomb())
        add_member(archive, "good2.png", encode((9, 9, 9)))
    return tmp_path / "in"


def test_every_corrupt_row_is_listed_with_its_reason(corrupt, tmp_path, capsys):
    before = {path.name for path in tmp_path.iterdir()}
    assert run(corrupt, tmp_path / "out", "--caption_field=caption") == 0
    records = list(open_records(tmp_path / "out", "train"))
    assert [record["captions"] for record in records] == [["kept"], ["kept too"]]
    listed = rejects(tmp_path / "out")
    by_line = {entry["line"]: entry["reason"] for entry in listed if entry["line"]}
    assert by_line == {line: reason for line, (_, reason) in enumerate(CORRUPT, start=1) if reason}
    members = [entry for entry in listed if entry["line"] is None]
    assert {entry["reason"] for entry in members} == {"unsafe tar member"}
    assert {entry["file"] for entry in members} == {"train_images.tar"}
    for name in ("../evil.png", "absolute.png", "link.png", "hard.png", "fifo.png"):
        assert any(name in entry["detail"] for entry in members)
    assert len(members) == 5
    assert all(entry["detail"] for entry in listed)
    assert {path.name for path in tmp_path.iterdir()} == before | {"out"}
    summary = capsys.readouterr().out
    assert "2 records" in summary
    assert f"rejected: {len(listed)}" in summary
    for reason, count in collections.Counter(entry["reason"] for entry in listed).items():
        assert [line.split()[-1] for line in summary.splitlines() if line.strip().startswith(reason)] == [
            str(count)
        ]


def test_missing_group_and_unequal_questions_are_rejected(tmp_path):
    rows = [
        {"image": "1.png", "q": ["a?", "b?"], "a": ["x"], "g": "1"},
        {"image": "1.png", "q": "a?", "a": " ", "g": "1"},
        {"image": "1.png", "q": "a?", "a": "x"},
        {"image": "1.png", "q": "a?", "a": "x", "g": None},
        {"image": "1.png", "q": "a?", "a": "x", "g": "1"},
    ]
    write_folder(tmp_path / "in", rows, {"1.png": encode()})
    flags = ["--question_field=q", "--answer_field=a", "--group_field=g"]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    assert [entry["reason"] for entry in rejects(tmp_path / "out")] == [
        "wrong type",
        "empty answer",
        "missing key",
        "wrong type",
    ]


def test_placeholders_are_escaped_and_counted(tmp_path, capsys):
    rows = [
        {
            "image": "1.png",
            "caption": ["a <image> here", "plain, 1 < 2"],
            "q": "is <think> [MASK] it?",
            "a": "no",
        }
    ]
    write_folder(tmp_path / "in", rows, {"1.png": encode()})
    flags = ["--caption_field=caption", "--question_field=q", "--answer_field=a"]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    (record,) = open_records(tmp_path / "out", "train")
    assert "<image>" not in record["captions"][0]
    assert record["captions"][1] == "plain, 1 < 2"
    assert "<think>" not in record["qa"][0]["question"]
    assert "[MASK]" not in record["qa"][0]["question"]
    assert "escaped placeholder: 2" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_damaged_archive_keeps_what_is_before_the_damage(tmp_path, damage):
    images = {f"{index}.png": encode((index, 0, 0), size=(40, 40)) for index in range(4)}
    write_folder(tmp_path / "in", [{"image": name, "caption": "x"} for name in images], images)
    tar = tmp_path / "in" / "train_images.tar"
    with tarfile.open(tar) as archive:
        third = archive.getmember("2.png")
    data = bytearray(tar.read_bytes())
    if damage == "truncated":
        data = data[: third.offset_data + 10]
    else:
        data[third.offset : third.offset + 512] = b"\x77" * 512
    tar.write_bytes(data)
    assert run(tmp_path / "in", tmp_path / "out", "--caption_field=caption") == 0
    assert [record["id"] for record in open_records(tmp_path / "out", "train")] == ["0.png", "1.png"]
    listed = rejects(tmp_path / "out")
    assert listed[0]["reason"] == "damaged tar"
    assert {entry["line"] for entry in listed[1:]} == {3, 4}


def test_groups_never_straddle_splits_and_other_files_stay_whole(tmp_path):
    names = [f"{index}.png" for index in range(120)]
    images = {name: encode() for name in names}
    rows = [{"image": name, "caption": "x", "scene": index // 3} for index, name in enumerate(names)]
    write_folder(tmp_path / "in", rows, images)
    write_folder(
        tmp_path / "in", [{"image": "t.png", "caption": "x", "scene": 0}], {"t.png": encode()}, split="test-1"
    )
    flags = [
        "--caption_field=caption",
        "--group_field=scene",
        "--split_fraction",
        "dev=0.2",
        "validation=0.2",
    ]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    splits = {split: list(open_records(tmp_path / "out", split)) for split in ("train", "dev", "validation")}
    assert [record["id"] for record in open_records(tmp_path / "out", "test_1")] == ["t.png"]
    assert sum(map(len, splits.values())) == 120
    groups = [{record["group"] for record in records} for records in splits.values()]
    assert sum(map(len, groups)) == 40
    assert all(len(records) % 3 == 0 and records for records in splits.values())


def test_split_fractions_are_met():
    split_of = make_splitter(["dev=0.25"], ["train"])
    share = sum(split_of("train", str(group)) == "dev" for group in range(20_000)) / 20_000
    assert abs(share - 0.25) < 0.012  # four standard deviations of a binomial
    assert split_of("test", "0") == "test"


def test_ids_are_unique_across_files(tmp_path):
    for split in ("dev", "train"):
        write_folder(tmp_path / "in", [{"image": "1.png", "caption": "x"}], {"1.png": encode()}, split=split)
    assert run(tmp_path / "in", tmp_path / "out", "--caption_field=caption") == 0
    assert [(entry["file"], entry["reason"]) for entry in rejects(tmp_path / "out")] == [
        ("train.jsonl", "duplicate id")
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset=nlvr1"], "unknown preset 'nlvr1'; did you mean 'nlvr_v1'?"),
        (["--preset=zzz"], "unknown preset 'zzz'; there are"),
        (["--preset=fxemoji", "--id_field=x"], "leave out --id_field"),
        ([], "say where the texts are"),
        (["--question_field=q"], "go together"),
        (["--caption_field=caption", "--split_fraction", "dev=2"], "NAME=FRACTION"),
        (["--caption_field=caption", "--split_fraction", "dev=.6", "x=.6"], "less than 1"),
        (["--caption_field=caption", "--split_fraction", "train=.1"], "choose another name"),
        (
            ["--caption_field=nothing"],
            "no row could be used (1 x missing key) train.jsonl line 1: missing key",
        ),
        (["--caption_fild=caption"], "unrecognized arguments: --caption_fild=caption"),
    ],
)
def test_unusable_commands_give_one_sentence(tmp_path, capsys, flags, message):
    write_folder(tmp_path / "in", [{"image": "1.png", "caption": "x"}], {"1.png": encode()})
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.startswith("convert: ")
    assert streams.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_unusable_folders_give_one_sentence(tmp_path, capsys):
    def sentence(folder, output="out"):
        assert run(folder, tmp_path / output, "--caption_field=caption") == 2
        return capsys.readouterr().err

    assert "is not a folder" in sentence(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no *.jsonl file" in sentence(tmp_path / "empty")
    (tmp_path / "empty" / "train.jsonl").write_text("")
    assert "train_images.tar, which is not in" in sentence(tmp_path / "empty")
    (tmp_path / "empty" / "train_images.tar").write_bytes(b"no archive" * 100)
    assert "not an uncompressed tar archive" in sentence(tmp_path / "empty")
    write_folder(tmp_path / "empty", [], {"1.png": encode()})
    assert "no row could be used (there is none)" in sentence(tmp_path / "empty")
    write_folder(tmp_path / "in", [{"image": "1.png", "caption": "x"}], {"1.png": encode()})
    (tmp_path / "out").mkdir()
    assert "already exists" in sentence(tmp_path / "in")
    assert list((tmp_path / "out").iterdir()) == []


def nlvr_row(number, label, position, **changes):
    scene = {"identifier": f"{number}-0", "directory": str(number), "image": f"train-{number}.png"}
    return {**scene, "sentence": f"sentence {number}", "label": label, "position_label": position, **changes}


def test_nlvr_preset_separates_captions_from_verified_statements(tmp_path):
    rows = [
        nlvr_row(0, "true", "false"),
        nlvr_row(1, None, "true"),
        nlvr_row(2, "false", "true"),
        nlvr_row(3, None, "false"),
        nlvr_row(4, None, None, sentence=None),
    ]
    write_folder(tmp_path / "in", rows, {row["image"]: encode() for row in rows})
    dev_images = [f"dev-7-0-{order}.png" for order in range(6)]
    dev = {"identifier": "7-0", "images": dev_images, "sentence": "seven", "label": "false"}
    write_folder(tmp_path / "in", [dev], {name: encode() for name in dev_images[:5]}, split="dev")
    assert run(tmp_path / "in", tmp_path / "out", "--preset=nlvr_v1") == 0
    train = {record["id"]: record for record in open_records(tmp_path / "out", "train")}
    statement = [{"question": "sentence 0", "answer": "true"}]
    assert (train["train-0"]["captions"], train["train-0"]["qa"]) == (["sentence 0"], statement)
    assert (train["train-1"]["captions"], train["train-1"]["qa"]) == (["sentence 1"], [])
    assert (train["train-2"]["captions"], train["train-2"]["qa"][0]["answer"]) == ([], "false")
    assert train["train-2"]["group"] == "2"
    assert json.loads(train["train-1"]["extra"])["position_label"] == "true"
    assert len(train) == 3
    records = list(open_records(tmp_path / "out", "dev"))
    assert [record["id"] for record in records] == [f"dev-7-0-{order}" for order in range(5)]
    assert {record["group"] for record in records} == {"7-0"}
    reasons = collections.Counter((entry["file"], entry["reason"]) for entry in rejects(tmp_path / "out"))
    assert reasons == {("train.jsonl", "no caption or question"): 2, ("dev.jsonl", "missing image"): 1}


def test_inspect_prints_counts_and_draws_a_sheet(tmp_path, capsys):
    rows = [{"image": f"{index}.png", "caption": " ".join(["word"] * (index + 1))} for index in range(8)]
    rows.append({"image": "8.png", "caption": "wide", "note": "licence"})
    rows += [{"image": ["9.png", "9.png"], "caption": "two"}, {"image": [], "caption": "none", "id": "text"}]
    rows = [{"id": str(row["image"])} | row for row in rows]
    images = {row["image"]: encode((250, 0, 0)) for row in rows[:8]} | {
        "8.png": encode((0, 0, 250), size=(60, 2)),
        "9.png": encode((0, 250, 0)),
    }
    write_folder(tmp_path / "in", rows, images)
    flags = ["--caption_field=caption", "--id_field=id", "--name=words"]
    assert run(tmp_path / "in", tmp_path / "out", *flags) == 0
    capsys.readouterr()
    assert inspect.main([str(tmp_path / "out"), f"--out={tmp_path / 'sheet.png'}"]) == 0
    printed = capsys.readouterr().out
    assert "words: captions, extra, group, id, images, qa" in printed
    assert "train: 11 records in 11 groups" in printed
    assert "captions   11 on 11 records; words each: 1 to 8, median 3" in printed
    assert "images     11; in a record: 0 to 2, median 1" in printed
    assert "widths     6 to 60, median 6 pixels" in printed
    assert "[0.png] word" in printed
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = {color: count for count, color in sheet.convert("RGB").getcolors(100_000)}
    assert colors[(250, 0, 0)] >= 8 * 200 * 130  # 6 x 4 pixels enlarged to 200 x 133
    assert colors[(0, 0, 250)] >= 200 * 6
    assert colors[(0, 250, 0)] >= 2 * 100 * 66  # two in a row


def test_inspect_names_what_is_wrong(tmp_path, capsys):
    assert inspect.main([str(tmp_path)]) == 2
    assert "holds no dataset" in capsys.readouterr().err
    write_folder(tmp_path / "in", [{"image": "1.png", "caption": "x"}], {"1.png": encode()})
    run(tmp_path / "in", tmp_path / "out", "--caption_field=caption")
    assert inspect.main([str(tmp_path / "out"), "--split=dev"]) == 2
    assert "dev" in capsys.readouterr().err


def test_importing_data_and_converter_loads_no_other_framework():
    code = (
        "import sys, mmrpt_jax.data, data_prep.convert, data_prep.inspect\n"
        "from mmrpt_jax.data import images, pipeline, records, sidecar\n"
        "print(sorted({'torch', 'tensorflow'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "flags", "records", "captions", "questions", "rejected"),
    [
        ("coco_mini_cc", [], {"train": 26}, 130, 0, 0),
        (
            "easy_vqa",
            ["--split_fraction", "validation=0.1"],
            {"train": 3571, "validation": 429},
            0,
            38_575,
            0,
        ),
        ("fxemoji", [], {"train": 930}, 930, 0, 0),
    ],
)
def test_real_sets(tmp_path, name, flags, records, captions, questions, rejected):
    if not (REAL / name).is_dir():
        pytest.skip(f"no real data in {REAL / name}; set MMRPT_DATA to its folder")
    assert run(REAL / name, tmp_path / "out", f"--preset={name}", *flags) == 0
    splits = {split: list(open_records(tmp_path / "out", split)) for split in records}
    assert {split: len(members) for split, members in splits.items()} == records
    everything = [record for members in splits.values() for record in members]
    assert sum(len(record["captions"]) for record in everything) == captions
    assert sum(len(record["qa"]) for record in everything) == questions
    assert len(rejects(tmp_path / "out")) == rejected
    with tarfile.open(REAL / name / "train_images.tar") as archive:
        originals = {archive.extractfile(member).read() for member in archive if member.isfile()}
    assert {image for record in everything for image in record["images"]} <= originals


def test_real_nlvr(tmp_path):
    if not (REAL / "nlvr_v1").is_dir():
        pytest.skip(f"no real data in {REAL / 'nlvr_v1'}; set MMRPT_DATA to its folder")
    folder = tmp_path / "in"
    folder.mkdir()
    for file in ("train.jsonl", "train_images.tar", "dev_images.tar"):
        (folder / file).symlink_to((REAL / "nlvr_v1" / file).absolute())
    with (REAL / "nlvr_v1" / "dev.jsonl").open() as lines:
        (folder / "dev.jsonl").write_text("".join(itertools.islice(lines, 50)))
    assert run(folder, tmp_path / "out", "--preset=nlvr_v1", "--split_fraction", "validation=0.1") == 0
    splits = {split: open_records(tmp_path / "out", split) for split in ("train", "validation", "dev")}
    assert len(splits["dev"]) == 300
    train, validation = list(splits["train"]), list(splits["validation"])
    # The source's README counts 1,828 usable captions and 1,000 rows with a gold label.
    assert sum(bool(record["captions"]) for record in train + validation) == 1828
    assert sum(bool(record["qa"]) for record in train + validation) == 1000
    assert not {record["group"] for record in train} & {record["group"] for record in validation}
    assert image_size(*train[0]["images"]) == (100, 400)
    assert len(rejects(tmp_path / "out")) == 12_410 - len(train) - len(validation)
