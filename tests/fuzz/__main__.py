"""Fuzzes one target with Atheris, guided by coverage: `python -m tests.fuzz tar -max_total_time=60 [CORPUS]`."""

import importlib
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Runs until a fault is found or a limit among libFuzzer's own flags is reached."""
    atheris = importlib.import_module("atheris")
    name, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["data_prep", "mmrpt_jax", "tarfile", "csv", "json"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *flags, corpus], target.fuzz_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
