"""Shows what a set of records holds, and draws some of it on a contact sheet.

python -m data_prep.inspect DIR
python -m data_prep.inspect DIR --split=train --out=sheet.png
"""

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmrpt_jax.data.images import ImageError, decode_image, image_size
from mmrpt_jax.data.records import RandomAccess, Record, open_builder, open_records

_COLUMNS = 6
_ROWS = 4
_THUMBNAIL = 200  # pixels
_TEXT = 80  # pixels below each thumbnail
_LINE_CHARACTERS = 34
_LINES = 5
_EXAMPLES = 3


def describe(records: RandomAccess[Record], split: str) -> str:
    """Returns counts, text lengths, image sizes and a few examples of one split as text."""
    words: list[int] = []
    heights: list[int] = []
    widths: list[int] = []
    groups: set[str] = set()
    images: list[int] = []
    questions = captioned = unreadable = 0
    for index in range(len(records)):
        record = records[index]
        groups.add(record["group"])
        words += [len(caption.split()) for caption in record["captions"]]
        captioned += bool(record["captions"])
        questions += len(record["qa"])
        images.append(len(record["images"]))
        for image in record["images"]:
            try:
                height, width = image_size(image)
            except ImageError:
                unreadable += 1
            else:
                heights.append(height)
                widths.append(width)
    lines = [
        f"{split}: {len(records)} records in {len(groups)} groups",
        f"  captions   {len(words)} on {captioned} records; words each: {_spread(words)}",
        f"  questions  {questions}",
        f"  images     {sum(images)}; in a record: {_spread(images)}",
        f"  heights    {_spread(heights)} pixels",
        f"  widths     {_spread(widths)} pixels",
    ]
    lines += [f"  unreadable images: {unreadable}"] if unreadable else []
    return "\n".join(
        [*lines, *(f"  {_example(records[index])}" for index in _picks(len(records), _EXAMPLES))]
    )


def contact_sheet(records: RandomAccess[Record]) -> Image.Image:
    """Draws thumbnails of records spread evenly over the split, with ids and texts below."""
    picks = _picks(len(records), _COLUMNS * _ROWS)
    rows = -(-len(picks) // _COLUMNS)
    cell = (_THUMBNAIL + 8, _THUMBNAIL + _TEXT + 8)
    sheet = Image.new("RGB", (_COLUMNS * cell[0], rows * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    for place, index in enumerate(picks):
        left, top = place % _COLUMNS * cell[0] + 4, place // _COLUMNS * cell[1] + 4
        record = records[index]
        draw.rectangle((left - 1, top - 1, left + _THUMBNAIL, top + _THUMBNAIL), outline="lightgrey")
        _paste(sheet, record["images"], left, top)
        draw.text((left, top + _THUMBNAIL + 3), _caption(record), fill="black", font=font)
    return sheet


def _paste(sheet: Image.Image, images: Sequence[bytes], left: int, top: int) -> None:
    """Draws all images of a record into its square, in rows of as many as there are rows."""
    columns = math.isqrt(max(len(images) - 1, 0)) + 1
    side = max(1, _THUMBNAIL // columns)
    for place, data in enumerate(images):
        row, column = divmod(place, columns)
        thumbnail = _thumbnail(data, side)
        x, y = left + column * side, top + row * side
        sheet.paste(thumbnail, (x + (side - thumbnail.width) // 2, y + (side - thumbnail.height) // 2))


def _thumbnail(data: bytes, side: int) -> Image.Image:
    try:
        image = Image.fromarray(decode_image(data))
    except ImageError:
        return Image.new("RGB", (side, side), "red")
    scale = min(side / image.width, side / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST)


def _caption(record: Record) -> str:
    said = record["captions"][:1] or [f"{pair['question']} -> {pair['answer']}" for pair in record["qa"]]
    lines = [line for text in [record["id"], *said] for line in textwrap.wrap(text, _LINE_CHARACTERS)]
    return "\n".join(lines[:_LINES])


def _example(record: Record) -> str:
    said = [
        *record["captions"][:1],
        *(f"{pair['question']} -> {pair['answer']}" for pair in record["qa"][:1]),
    ]
    more = len(record["captions"]) + len(record["qa"]) - len(said)
    tail = f" (+{more})" if more else ""
    return textwrap.shorten(f"[{record['id']}] {' | '.join(said)}{tail}", 160)


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "none"
    return f"{min(values)} to {max(values)}, median {np.median(values):g}"


def _picks(length: int, count: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, length - 1, min(count, length))})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a converted set")
    parser.add_argument(
        "--split", help="only this split; TFDS slices such as train[:100] work too (default: all)"
    )
    parser.add_argument("--out", type=Path, help="the contact sheet (default: DIR/contact_sheet.png)")
    options = parser.parse_args(arguments)
    out = options.out or options.directory / "contact_sheet.png"
    try:
        builder = open_builder(options.directory)
        print(f"{builder.info.name}: {', '.join(sorted(builder.info.features))}")
        splits = [options.split] if options.split else list(builder.info.splits)
        for split in splits:
            print(describe(open_records(options.directory, split), split))
        shown = "train" if "train" in splits else splits[0]
        contact_sheet(open_records(options.directory, shown)).save(out)
    except (OSError, ValueError) as error:
        print(f"inspect: {error}", file=sys.stderr)
        return 2
    print(f"contact sheet of {shown}: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
