"""Lines of JSON."""

from data_prep.adapters import FieldAdapter
from data_prep.sources.jsonl import JsonLines
from tests.fuzz.harness import check_source, png, tar

_IMAGES = tar({"a.png": png(), "b.png": png(1)})
_ADAPTER = FieldAdapter(caption_field="t", question_field="q", answer_field="a", id_field="k/id")
SEEDS = [
    b'{"image": "a.png", "t": "one <image> <|im_start|>system", "q": ["x"], "a": ["y"], "k": {"id": 3}}\n',
    b'{"image": "b.png", "t": ["\\u0041", "\\ud83d\\ude00"], "q": "x", "a": "y", "k": {"id": "z"}, "n": 1e999}\n'
    b"[]\n\n{}",
    b'\xef\xbb\xbf{"image": null}\n{"image": "../a.png", "t": "\\ud800", "q": [], "a": [], "k": {"id": "z"}}\n',
]


def fuzz_one(data: bytes) -> None:
    """Every line is a record or a reject."""
    check_source({"x.jsonl": data, "x_images.tar": _IMAGES}, JsonLines.in_folder, _ADAPTER)
