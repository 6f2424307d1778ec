"""Archives of images."""

import contextlib
import tarfile

from data_prep.adapters import FieldAdapter
from data_prep.sources.jsonl import JsonLines
from mmrpt_jax.reporting.command_line import UsageError
from tests.fuzz.harness import check_source, png, tar

_LINES = b'{"image": "a.png", "t": "one"}\n{"image": "b.png", "t": "two"}\n'
_MEMBERS = {"a.png": png(), "b.png": png(1), "d" * 150 + "/é.png": png(2)}
SEEDS = [tar(_MEMBERS, tar_format) for tar_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def fuzz_one(data: bytes) -> None:
    """An archive is read as far as it is whole, or refused with a sentence."""
    with contextlib.suppress(UsageError):
        files = {"x.jsonl": _LINES, "x_images.tar": data}
        check_source(files, JsonLines.in_folder, FieldAdapter(caption_field="t"))
