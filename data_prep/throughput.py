"""How fast conversion is, and how much memory it takes, on synthetic sets of growing size.

    python -m data_prep.throughput --records 2000 20000 --workers=2

Records per second, megabytes of input per second, seconds of CPU of all processes (which do not depend on what else
the machine does), and the largest resident memory of any process. Starting up takes a few seconds of each run.
"""

import argparse
import collections
import contextlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

_DISTINCT_IMAGES = 32
_SECONDS_BETWEEN_LOOKS = 0.1


def make_set(folder: Path, records: int, side: int) -> int:
    """Writes `records` captioned JPEGs of `side` x `side` pixels as train.jsonl and train_images.tar; returns bytes."""
    rng = np.random.default_rng(0)
    images = [
        _jpeg(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8), side)
        for _ in range(_DISTINCT_IMAGES)
    ]
    with tarfile.open(folder / "train_images.tar", "w") as tar, (folder / "train.jsonl").open("w") as lines:
        for number in range(records):
            data = images[number % _DISTINCT_IMAGES]
            member = tarfile.TarInfo(f"{number:09}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            lines.write(
                json.dumps({"image": member.name, "text": f"caption number {number} of a picture"}) + "\n"
            )
            tar.members.clear()  # type: ignore[attr-defined]
    return sum(path.stat().st_size for path in folder.iterdir())


def measure(folder: Path, output: Path, workers: int) -> tuple[float, float, int]:
    """Converts `folder` in processes of their own; returns (seconds, seconds of CPU, bytes of the largest process)."""
    flags = [f"--input={folder}", f"--output={output}", "--caption_field=text", f"--workers={workers}"]
    start, busy, largest = time.monotonic(), collections.Counter[int](), 0
    with subprocess.Popen(
        [sys.executable, "-m", "data_prep.convert", *flags], stdout=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            for each in _family(watched):
                with contextlib.suppress(psutil.NoSuchProcess):
                    largest = max(largest, each.memory_info().rss)
                    busy[each.pid] = sum(each.cpu_times()[:2])
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.monotonic() - start, sum(busy.values()), largest


def _family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def _jpeg(coarse: np.ndarray, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line per size."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.throughput", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[2000, 20_000], help="sizes (%(default)s)")
    parser.add_argument("--side", type=int, default=336, help="height and width in pixels (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    options = parser.parse_args(arguments)
    print(
        f"{'records':>9} {'MB':>8} {'seconds':>8} {'records/s':>10} {'MB/s':>7} {'CPU s':>7}"
        f" {'largest process, MB':>20}"
    )
    for records in options.records:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "source")
            source.mkdir()
            size = make_set(source, records, options.side) / 1e6
            seconds, busy, memory = measure(source, Path(folder, "output"), options.workers)
        print(
            f"{records:9} {size:8.1f} {seconds:8.1f} {records / seconds:10.0f} {size / seconds:7.1f}"
            f" {busy:7.1f} {memory / 1e6:20.0f}"
        )


if __name__ == "__main__":
    main()
