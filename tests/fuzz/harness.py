"""What must hold for any source, whatever is in its files."""

import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from data_prep.adapters import Adapter
from data_prep.errors import Reject
from data_prep.rows import check_item
from data_prep.sources.base import Source
from mmrpt_jax.data.escape import escape_placeholders

MAX_PIXELS = 2**14


def png(color: int = 0, size: tuple[int, int] = (4, 3), file_format: str = "PNG") -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (color, 2, 3)).save(buffer, file_format)
    return buffer.getvalue()


def tar(members: Mapping[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def check_source(
    files: Mapping[str, bytes], make: Callable[[Path], Source], adapter: Adapter | None = None
) -> None:
    """Plans and reads a source of `files` as a conversion would.

    Every row is a clean record or a reject, and nothing is written but into the scratch folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        inside, scratch = Path(folder, "in"), Path(folder, "scratch")
        inside.mkdir()
        scratch.mkdir()
        for name, data in files.items():
            (inside / name).write_bytes(data)
        source = make(inside)
        rejects: list[Reject] = []
        tasks = list(source.plan(scratch, 2, lambda reject, file: rejects.append(reject)))
        for task in tasks:
            for item in source.read(task, scratch):
                for outcome in check_item(item, adapter or source.adapter, max_pixels=MAX_PIXELS):
                    if isinstance(outcome, Reject):
                        rejects.append(outcome)
                        continue
                    record = outcome.record
                    texts = [*record["captions"], *(text for pair in record["qa"] for text in pair.values())]
                    assert all(text and text == escape_placeholders(text) for text in texts)
        assert all(reject.reason and isinstance(reject.detail, str) for reject in rejects)
        assert sorted(os.listdir(folder)) == ["in", "scratch"]
        assert {path.name for path in inside.iterdir()} == files.keys()
