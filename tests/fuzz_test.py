"""Drives every fuzz target with damaged copies of its seeds and with junk."""

import importlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.source_tree import ROOT

EXAMPLES = 40
TARGETS = sorted(
    path.stem
    for path in (ROOT / "tests" / "fuzz").glob("*.py")
    if "def fuzz_one" in path.read_text(encoding="utf-8")
)
# What parsers take for structure: sizes, ends, quotes, and strings of special meaning.
JUNK = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"\0" * 512,
            b"\xff" * 8,
            b"\x80" + b"\xff" * 11,
            b"7" * 11,
            b"-1",
            b'"',
            b"\n",
            b"\t",
            b"]}",
            b"[" * 5000,
        ]
    ),
)


@st.composite
def damaged(draw, seeds):
    """A seed of which up to four pieces were overwritten, cut out, repeated or filled with junk."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 600)))
        piece = draw(st.sampled_from(["junk", "over", "twice", "cut"]))
        junk = draw(JUNK) if piece in ("junk", "over") else data[start:stop] * 2 if piece == "twice" else b""
        end = start if piece == "junk" else start + len(junk) if piece == "over" else stop
        data = data[:start] + junk + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_target(name):
    target = importlib.import_module(f"tests.fuzz.{name}")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(damaged(target.SEEDS), st.binary(max_size=600)))
    def fuzz(data):
        target.fuzz_one(data)

    for seed in target.SEEDS:
        target.fuzz_one(seed)
    fuzz()


def test_every_parser_has_a_target():
    assert TARGETS == ["coco", "image", "jsonl", "manifest", "parquet", "tar", "tsv", "webdataset"]
