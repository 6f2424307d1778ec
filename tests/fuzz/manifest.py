"""Manifests of datasets that others converted."""

import contextlib
import tempfile
from pathlib import Path

from mmrpt_jax.data.manifest import DamagedDatasetError, verify

SEEDS = [
    b'{"job": "x", "files": {"a": {"bytes": 1, "sha256": "00", "records": 3}, "../b": {"bytes": 0, "sha256": ""}}}',
    b'{"job": "", "files": {}}',
]


def fuzz_one(data: bytes) -> None:
    """A manifest is met, or the dataset is refused with a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest.json").write_bytes(data)
        with contextlib.suppress(DamagedDatasetError):
            verify(folder, {}, checksums=True)
