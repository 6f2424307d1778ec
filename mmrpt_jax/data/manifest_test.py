import hashlib
import json

import pytest

from mmrpt_jax.data.manifest import (
    DamagedDatasetError,
    FileEntry,
    describe_file,
    read_manifest,
    verify,
    write_manifest,
)

LENGTHS = {"a": 3, "b": 4}


@pytest.fixture
def dataset(tmp_path):
    """Two shards and a text."""
    for name, content in {"a": b"aaa", "b": b"bbbb", "text": b"t"}.items():
        (tmp_path / name).write_bytes(content)
    files = {name: describe_file(tmp_path / name, LENGTHS.get(name)) for name in ("a", "b", "text")}
    write_manifest(tmp_path, files, job="j")
    return tmp_path


def test_an_entry_is_size_and_checksum(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert describe_file(tmp_path / "x", 7) == FileEntry(3, hashlib.sha256(b"abc").hexdigest(), 7)


def test_what_was_written_passes(dataset):
    verify(dataset, LENGTHS, checksums=True)
    job, files = read_manifest(dataset)
    assert job == "j" and files["b"].records == 4 and files["text"].records is None
    assert {path.name for path in dataset.iterdir()} == {"a", "b", "text", "manifest.json"}


def test_other_files_do_not_matter(dataset):
    (dataset / "contact_sheet.png").write_bytes(b"x")
    verify(dataset, LENGTHS, checksums=True)


def test_a_dataset_without_a_manifest_passes(tmp_path):
    verify(tmp_path, {"a": 3}, checksums=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "/b is missing"), (b"bbb", "/b has 3 bytes, manifest.json says 4"), (b"bbxb", "/b was changed")],
)
def test_a_damaged_file_is_named(dataset, content, message):
    (dataset / "b").unlink()
    if content is not None:
        (dataset / "b").write_bytes(content)
    with pytest.raises(DamagedDatasetError, match=message):
        verify(dataset, LENGTHS, checksums=True)


def test_a_changed_byte_is_seen_only_by_reading(dataset):
    (dataset / "b").write_bytes(b"bbxb")
    verify(dataset, LENGTHS)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"a": 3, "b": 5}, "/b: manifest.json says 4 records where dataset_info.json says 5 records"),
        ({"a": 3}, "/b: manifest.json says 4 records where dataset_info.json says nothing"),
        ({"a": 3, "b": 4, "c": 1}, "/c: manifest.json says nothing where dataset_info.json says 1 records"),
    ],
)
def test_counts_are_compared(dataset, lengths, message):
    with pytest.raises(DamagedDatasetError, match=message):
        verify(dataset, lengths)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"job": "", "files": {"a": {"size": 1}}}', b"\xff", b"[" * 10**5]
)
def test_an_unreadable_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedDatasetError, match=r"manifest\.json is no manifest"):
        verify(tmp_path, {})


def test_the_manifest_is_plain_json(dataset):
    content = json.loads((dataset / "manifest.json").read_text())
    assert content["files"]["a"]["bytes"] == 3
