"""Shards of WebDataset."""

from data_prep.sources.webdataset import WebDataset
from tests.fuzz.harness import check_source, png, tar

_PLAIN = {
    "a.jpg": png(),
    "a.txt": b"one",
    "a.json": b'{"n": 1}',
    "b.left.png": png(1),
    "b.txt": b"\xff",
    "c.cls": b"3",
}
_ODD = {
    "a/b.txt": b"<think>",
    "a/b.png": png(),
    ".png": png(1),
    "a/.hidden": b"",
    "a/c.JPG": b"junk",
    "a/c.txt": b"x",
}
SEEDS = [tar(_PLAIN), tar(_ODD)]


def fuzz_one(data: bytes) -> None:
    """Every sample is a record or a reject."""
    check_source({"x.tar": data}, lambda folder: WebDataset((folder / "x.tar",)))
