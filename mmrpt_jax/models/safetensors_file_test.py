import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mmrpt_jax.models.safetensors_file import read_header, write_file

TENSORS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2.0], np.float16),
    "brain": np.array([0.25, 3.0], jnp.bfloat16),
    "ids": np.arange(3),
    "flag": np.array(True),
    "nothing": np.zeros((0, 4), np.float32),
}


def pack(header, numbers=bytes(8)):
    """The bytes of a file with this header, JSON or text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def entry(begin, end, *, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_the_library_wrote_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "f", metadata={"format": "pt"})
    found = read_header(tmp_path / "f")
    assert found.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        view = found[name].view()
        assert view.dtype == expected.dtype and view.shape == expected.shape
        np.testing.assert_array_equal(view, expected)


def test_what_is_written_the_library_reads(tmp_path):
    turned = {"columns": TENSORS["matrix"].T, "scalar": TENSORS["flag"], "brain": TENSORS["brain"]}
    write_file(tmp_path / "f", turned)
    stored = load_file(tmp_path / "f")
    assert stored.keys() == turned.keys()
    for name, expected in turned.items():
        assert stored[name].dtype == expected.dtype and stored[name].shape == expected.shape
        np.testing.assert_array_equal(stored[name], expected)
    with safe_open(tmp_path / "f", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes cannot hold a header of 0"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "42 bytes cannot hold a header of 2336927755350992246",
        ),
        (pack(b"{")[:8], "cannot hold a header"),
        (struct.pack("<Q", 2**63) + b"{}", "cannot hold a header"),
        (pack(b"{"), "not JSON"),
        (pack(b"\xff\xfe"), "not JSON"),
        (pack(b"[" * 100_000), "not JSON"),
        (pack([]), "not a JSON object"),
        (pack({"a": 1}), "the entry of 'a' is malformed"),
        (pack({"a": entry(0, 4) | {"data_offsets": [0, 4, 8]}}), "malformed"),
        (pack({"a": entry(0, 4) | {"data_offsets": [0.0, 4.0]}}), "malformed"),
        (pack({"a": entry(0, 8, dtype="F31", shape=(2,))}), "'a' is of an unknown type, 'F31'"),
        (pack({"a": entry(0, 8, shape=(-1, -2))}), "impossible shape"),
        (pack({"a": entry(0, 8, shape=("2",))}), "impossible shape"),
        (pack({"a": entry(0, 8, shape=(3,))}), "'a' of type F32 does not take 8 bytes"),
        (pack({"a": entry(0, 8, shape=(2**62, 4))}), "does not take 8 bytes"),
        (pack({"a": entry(0, 4), "b": entry(0, 4)}), "lies at byte"),
        (pack({"a": entry(0, 4), "b": entry(2, 6)}), "'b' lies at byte"),
        (pack({"a": entry(4, 8)}), "'a' lies at byte"),
        (pack({"a": entry(-4, 0)}), "'a' lies at byte"),
        (pack({"a": entry(0, 4)}), "its tensors end at byte"),
        (pack({"a": entry(0, 12, shape=(3,))}), "its tensors end at byte"),
    ],
)
def test_lies_are_refused(content, reason, tmp_path):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as refusal:
        read_header(tmp_path / "f")
    assert str(refusal.value).startswith(f"{tmp_path / 'f'} is no sound safetensors file: ")
    assert "\n" not in str(refusal.value)


def check_against_the_library(path):
    """Whatever the bytes: refused with our error, or read as the library reads it."""
    try:
        found = read_header(path)
    except ValueError:
        return False
    expected = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.view().tobytes() == expected[name].tobytes()
    return True


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("flipped") / "f"
    save_file(TENSORS, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 4))
    path.write_bytes(content[: len(content) - cut])
    check_against_the_library(path)


NUMBERS = st.one_of(st.integers(-8, 24), st.sampled_from([True, None, "4", 2**63, 2**64, 10**30, 4.0]))
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "I64", "F4", "", 3]),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), st.none()),
        "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), st.none()),
    }
)


@settings(max_examples=300, deadline=None)
@given(header=st.dictionaries(st.text("ab", max_size=2), ENTRIES, max_size=3), size=st.integers(0, 24))
def test_random_headers(header, size, tmp_path_factory):
    path = tmp_path_factory.mktemp("random") / "f"
    path.write_bytes(pack(header, bytes(size)))
    check_against_the_library(path)


@given(sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_true_headers_are_accepted(sizes, tmp_path_factory):
    path, header, end = tmp_path_factory.mktemp("true") / "f", {}, 0
    for i, size in enumerate(sizes):
        header[str(i)] = entry(end, end + 4 * size, shape=(size,))
        end += 4 * size
    path.write_bytes(pack(header, bytes(end)))
    assert check_against_the_library(path)
