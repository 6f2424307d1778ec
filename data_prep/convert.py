"""Converts a folder of X.jsonl + X_images.tar pairs into records: one TFDS dataset, stored as ArrayRecord.

    python -m data_prep.convert --input=FOLDER --output=DIR --preset=nlvr_v1
    python -m data_prep.convert --input=FOLDER --output=DIR --caption_field=text --split_fraction dev=0.1

Every X.jsonl becomes the split X. What cannot be used is listed in DIR/rejects.jsonl. DIR appears when all is
done.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_prep.adapters import PRESETS, Adapter, FieldAdapter
from data_prep.rejects import RejectLog
from data_prep.rows import RecordMaker, read_records
from data_prep.splits import make_splitter
from mmrpt_jax.data.images import MAX_PIXELS
from mmrpt_jax.data.records import (
    RECORD_FEATURES,
    EmptyDatasetError,
    Record,
    new_directory,
    write_examples,
)
from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command

_FIELD_FLAGS = ("image_field", "caption_field", "question_field", "answer_field", "id_field", "group_field")


def convert(
    pairs: Sequence[tuple[Path, Path]],
    output: Path,
    adapter: Adapter,
    *,
    name: str,
    split_of: Callable[[str, str], str],
    max_pixels: int = MAX_PIXELS,
) -> str:
    """Converts files into the new directory `output`; returns a summary of several lines.

    Args:
        pairs: (jsonl, tar) files.
        output: the directory; it appears complete or not at all.
        adapter: what a row means.
        name: the dataset's name.
        split_of: (split of the file, group) -> split.
        max_pixels: larger images are rejected.

    Raises:
        FileExistsError: `output` exists.
        UsageError: an archive is none, or no row at all could be used.
    """
    make = RecordMaker(max_pixels)

    def examples() -> Iterator[tuple[str, Record]]:
        for jsonl, tar in pairs:
            for record in read_records(jsonl, tar, adapter, make, rejects):
                yield split_of(_split_name(jsonl), record["group"]), record

    with new_directory(output) as staging, RejectLog(staging / "rejects.jsonl") as rejects:
        try:
            counts = write_examples(staging, name, RECORD_FEATURES, examples())
        except EmptyDatasetError as error:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in rejects.counts.most_common())
            raise UsageError(
                f"no row could be used ({reasons or 'there is none'}) {rejects.first}"
            ) from error
    lines = [f"{output}: {sum(counts.values())} records"]
    lines += [f"  {split:24} {count:8}" for split, count in counts.items()]
    lines += [f"rejected: {rejects.counts.total()}, listed in rejects.jsonl"]
    lines += [f"  {reason:24} {count:8}" for reason, count in rejects.counts.most_common()]
    return "\n".join([*lines, f"texts with an escaped placeholder: {make.escaped}"])


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Returns the (X.jsonl, X_images.tar) pairs of `folder`, by name; raises UsageError if there are none."""
    if not folder.is_dir():
        raise UsageError(f"--input={folder} is not a folder")
    pairs = [(file, file.with_name(f"{file.stem}_images.tar")) for file in sorted(folder.glob("*.jsonl"))]
    if not pairs:
        raise UsageError(f"{folder} has no *.jsonl file")
    for file, tar in pairs:
        if not tar.is_file():
            raise UsageError(f"{file.name} needs its images in {tar.name}, which is not in {folder}")
    return pairs


def make_adapter(options: argparse.Namespace) -> Adapter:
    """Returns the preset's adapter, or one made of the field flags; raises UsageError."""
    fields = {flag: getattr(options, flag) for flag in _FIELD_FLAGS if getattr(options, flag) is not None}
    if options.preset is not None:
        if options.preset not in PRESETS:
            near = difflib.get_close_matches(options.preset, PRESETS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PRESETS)}"
            raise UsageError(f"unknown preset {options.preset!r}; {hint}")
        if fields:
            raise UsageError(
                f"--preset={options.preset} already names the fields; leave out --{next(iter(fields))}"
            )
        return PRESETS[options.preset]
    if ("question_field" in fields) != ("answer_field" in fields):
        raise UsageError("--question_field and --answer_field go together")
    if not fields.keys() & {"caption_field", "question_field"}:
        raise UsageError(
            "say where the texts are: --preset, --caption_field, or --question_field and --answer_field"
        )
    return FieldAdapter(**fields)


def _split_name(jsonl: Path) -> str:
    return _identifier(jsonl.stem, "split")


def _identifier(text: str, prefix: str) -> str:
    """Makes `text` fit for TFDS: letters, digits, underscores, beginning with a letter."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"{prefix}_{name}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m data_prep.convert", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="folder of X.jsonl and X_images.tar")
    parser.add_argument("--output", type=Path, required=True, help="directory to make; must not exist")
    parser.add_argument("--name", help="the dataset's name (default: that of the input folder)")
    parser.add_argument("--preset", help=f"a known dataset: {', '.join(PRESETS)}")
    parser.add_argument("--image_field", help="the image's name in the archive (default: image)")
    parser.add_argument("--caption_field", help="a caption, or a list of captions")
    parser.add_argument("--question_field", help="a question, or a list of questions")
    parser.add_argument("--answer_field", help="the answer, or the list of answers")
    parser.add_argument("--id_field", help="a unique id (default: the image's name)")
    parser.add_argument("--group_field", help="rows of one group stay in one split (default: the id)")
    parser.add_argument(
        "--split_fraction",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FRACTION",
        help="split this fraction of the groups off train (or the only file), as in dev=0.1",
    )
    parser.add_argument(
        "--max_pixels", type=int, default=MAX_PIXELS, help="larger images are rejected (%(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: _convert_as(_parser().parse_args(arguments)), name="convert")


def _convert_as(options: argparse.Namespace) -> str:
    adapter = make_adapter(options)
    pairs = find_pairs(options.input)
    split_of = make_splitter(options.split_fraction, [_split_name(jsonl) for jsonl, _ in pairs])
    name = _identifier(options.name or options.input.resolve().name, "dataset")
    return convert(
        pairs, options.output, adapter, name=name, split_of=split_of, max_pixels=options.max_pixels
    )


if __name__ == "__main__":
    sys.exit(main())
