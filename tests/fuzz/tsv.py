"""VLMEvalKit's tables."""

import base64

from data_prep.sources.tsv import Tsv
from tests.fuzz.harness import check_source, png

_PICTURE = base64.b64encode(png())
SEEDS = [
    b"index\timage\tquestion\tanswer\tA\n1\t"
    + _PICTURE
    + b'\t"a\n""b""\tc"\td\tyes\n2\t1\tq\ta\t\n3\t2\tq\ta\t\n',
    b'\xef\xbb\xbfindex\timage_path\tquestion\tanswer\n1\tx.tsv\tq\ta\n2\t../x\t\xff\ta\n3\t\t"\n',
    b'""\n"\n""""\t"\n',
]


def fuzz_one(data: bytes) -> None:
    """Every row is a record or a reject."""
    check_source({"x.tsv": data}, lambda folder: Tsv((folder / "x.tsv",)))
