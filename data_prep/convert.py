"""Converts images and texts in a public format into records: one TFDS dataset, stored as ArrayRecord.

    python -m data_prep.convert --input=FOLDER --output=DIR --preset=nlvr_v1
    python -m data_prep.convert --input='shards/{0000..0099}.tar' --output=DIR --split_fraction dev=0.1
    python -m data_prep.convert --input=FOLDER --output=DIR --format=parquet --caption_field=text

What cannot be used is listed in DIR/rejects.jsonl. DIR appears when all is done; a command that was stopped goes on
where it was when it is run again.
"""

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.adapters import PRESETS, Adapter, FieldAdapter
from data_prep.ids import find_repeats
from data_prep.job import Job
from data_prep.names import identifier
from data_prep.sources.base import Source
from data_prep.sources.detect import FORMATS, open_source
from data_prep.splits import make_splitter
from data_prep.tasks import Conversion
from data_prep.workers import run_all
from mmrpt_jax.data.images import MAX_PIXELS
from mmrpt_jax.data.records import EXAMPLES_PER_SHARD
from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command

_FIELD_FLAGS = ("image_field", "caption_field", "question_field", "answer_field", "id_field", "group_field")


def convert(job: Job, *, workers: int) -> str:
    """Does a job on this machine, or what is left of it; returns a summary of several lines.

    Args:
        job: what to do.
        workers: processes; their number changes nothing but the time.

    Raises:
        FileExistsError: the output exists, and is not this job's.
        OSError: the disk is full, or a worker died. The same job goes on where it was.
        UsageError: an archive is none, or no row at all could be used.
    """
    if job.is_done():
        shutil.rmtree(job.staging, ignore_errors=True)
        return f"{job.output} is complete already"
    with job.claimed():
        tasks = job.plan()
        ids = run_all(job.run, list(enumerate(tasks)), workers=workers, what="converted parts")
        repeats = find_repeats(ids)
        calls = [(number, tasks[number], places.tolist()) for number, places in repeats.items()]
        run_all(job.leave_out, calls, workers=workers, what="parts freed of repeated ids")
        return job.finish(tasks)


def make_job(options: argparse.Namespace) -> Job:
    """Returns the job that the flags describe; raises UsageError."""
    adapter = make_adapter(options)
    source = open_source(options.input, options.format, options.images)
    conversion = Conversion(
        source=source,
        adapter=adapter or default_adapter(source),
        split_of=make_splitter(options.split_fraction, source.splits),
        max_pixels=options.max_pixels,
    )
    name = identifier(options.name or Path(options.input).resolve().stem, "dataset")
    return Job(conversion, options.output, name, options.rows_per_shard)


def default_adapter(source: Source) -> Adapter:
    """Returns what the source's rows mean by themselves; raises UsageError if only the user can say."""
    if source.adapter is None:
        raise UsageError(
            "say where the texts are: --preset, --caption_field, or --question_field and --answer_field"
        )
    return source.adapter


def make_adapter(options: argparse.Namespace) -> Adapter | None:
    """Returns the preset's adapter, or one made of the field flags, or None without any; raises UsageError."""
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
    if not fields:
        return None
    if not fields.keys() & {"caption_field", "question_field"}:
        raise UsageError(
            f"--{next(iter(fields))} says nothing about texts; "
            "add --caption_field, or --question_field and --answer_field"
        )
    return FieldAdapter(**fields)


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of the flags that make a job; it raises UsageError."""
    parser = Parser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--input", required=True, help="file, folder, pattern such as 'a-{00..99}.tar', or TFDS name"
    )
    parser.add_argument("--output", type=Path, required=True, help="directory to make; must not exist")
    parser.add_argument("--format", choices=FORMATS, help="default: what the input is plain to be")
    parser.add_argument("--images", type=Path, help="folder of images, for parquet with paths, coco and tsv")
    parser.add_argument("--name", help="the dataset's name (default: that of the input)")
    parser.add_argument("--preset", help=f"a known dataset: {', '.join(PRESETS)}")
    parser.add_argument("--image_field", help="the image's name in the archive, or a list (default: image)")
    parser.add_argument("--caption_field", help="a caption, or a list of captions; outer/inner nests")
    parser.add_argument("--question_field", help="a question, or a list of questions")
    parser.add_argument("--answer_field", help="the answer, or the list of answers")
    parser.add_argument("--id_field", help="a unique id (default: the images' names)")
    parser.add_argument("--group_field", help="rows of one group stay in one split (default: the id)")
    parser.add_argument(
        "--split_fraction",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FRACTION",
        help="split this fraction of the groups off train (or the only split), as in dev=0.1",
    )
    parser.add_argument(
        "--max_pixels", type=int, default=MAX_PIXELS, help="larger images are rejected (%(default)s)"
    )
    parser.add_argument(
        "--rows_per_shard",
        type=_positive,
        default=EXAMPLES_PER_SHARD,
        help="rows that one process converts at a time into a shard per split (%(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=_positive,
        default=len(os.sched_getaffinity(0)),
        help="processes; the result is the same (default: one per core)",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: _convert_as(arguments), name="convert")


def _convert_as(arguments: Sequence[str] | None) -> str:
    options = make_parser("data_prep.convert", __doc__).parse_args(arguments)
    return convert(make_job(options), workers=options.workers)


if __name__ == "__main__":
    sys.exit(main())
