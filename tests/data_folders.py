"""Folders of images and texts for the converter, and what it makes of them."""

import io
import json
import struct
import tarfile
import zlib

from PIL import Image

from data_prep import convert

# Of `disturbed_folder`: five rows to a task, some of which hold repeated ids.
FLAGS = (
    "--name=x",
    "--caption_field=caption",
    "--group_field=scene",
    "--rows_per_shard=5",
    "--split_fraction",
    "dev=0.3",
)
ROWS = 24


def encode(color=(1, 2, 3), size=(6, 4), file_format="PNG"):
    """An image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, file_format)
    return buffer.getvalue()


def bomb():
    """A PNG of a few bytes whose header promises 60,000 x 60,000 pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT")
    packed = (
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def add_member(archive, name, data=b"", **fields):
    """Adds a member of any kind to an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(data))


def write_folder(folder, rows, images, split="train"):
    """Writes rows (objects, or raw bytes for broken lines) and images as X.jsonl and X_images.tar."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / f"{split}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with tarfile.open(folder / f"{split}_images.tar", "w") as archive:
        for name, data in images.items():
            add_member(archive, name, data)


def run(folder, output, *flags):
    """Converts in this process; returns the exit code."""
    return convert.main([f"--input={folder}", f"--output={output}", "--workers=1", *flags])


def rejects(output):
    """The list of what was left out."""
    return [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]


def disturbed_folder(folder):
    """Two splits; some ids come again, far behind and in the other file, and one image is missing."""
    rows = [{"image": f"{i}.png", "caption": f"number {i}", "scene": i // 3} for i in range(ROWS)]
    rows[21] = rows[2] | {"caption": "again"}
    rows[22] = rows[19] | {"caption": "again"}
    rows[10] = {"image": "nowhere.png", "caption": "x", "scene": 0}
    images = {f"{i}.png": encode((i, 0, 0)) for i in range(ROWS)}
    write_folder(folder, rows, images)
    images["t.png"] = encode()
    write_folder(folder, [rows[5], rows[6] | {"image": "t.png"}], images, split="a_test")
    return folder
