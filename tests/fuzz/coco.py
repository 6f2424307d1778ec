"""COCO captions."""

from data_prep.sources.coco import Coco
from tests.fuzz.harness import check_source

SEEDS = [
    b'{"info": {}, "images": [{"id": 1, "file_name": "captions_x.json"}, {"id": "b", "file_name": "../b"}],'
    b' "annotations": [{"image_id": 1, "caption": "one"}, {"image_id": "b", "caption": ["x"]}, {"image_id": [2]}]}',
    b'{"annotations": [{"image_id": 1, "caption": "\\ud800"}], "licenses": [1, -2.5e3, null], "images": [{"id": 1,'
    b' "file_name": ""}, 7, {"id": 1e400, "file_name": {"a": []}}]}',
]


def fuzz_one(data: bytes) -> None:
    """Every image is a record or a reject, as far as the file is whole."""
    make = Coco
    check_source({"captions_x.json": data}, lambda folder: make((folder / "captions_x.json",), folder))
