"""The same conversion on Apache Beam: the same flags and the same files, on any of its runners.

    python -m data_prep.beam --input='gcs/{0000..9999}.tar' --output=DIR --runner=DirectRunner
    python -m data_prep.beam --input=... --output=... --runner=FlinkRunner --flink_master=HOST:8081

Flags that are not the converter's own go to Beam. Input and output are folders that every machine sees under one path.
Images never travel through the pipeline: a task writes its shards where they stay, and only digests of ids are grouped.
"""

import argparse
import importlib
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.convert import make_job, make_parser
from data_prep.ids import ID
from data_prep.job import Job
from data_prep.sources.base import Task
from mmrpt_jax.reporting.command_line import UsageError, run_command


def convert(job: Job, flags: Sequence[str]) -> str:
    """Does a job, or what is left of it, as a pipeline with Beam's `flags`; returns a summary of several lines.

    Raises:
        FileExistsError: the output exists, and is not this job's.
        UsageError: Beam is not installed, an archive is none, or no row at all could be used.
    """
    try:
        # An optional package: an import statement would make it one of ours.
        beam = importlib.import_module("apache_beam")
        options = importlib.import_module("apache_beam.options.pipeline_options").PipelineOptions(flags)
    except ImportError as error:
        raise UsageError("Beam is not installed: pip install 'mmrpt_jax[beam]'") from error
    if job.is_done():
        shutil.rmtree(job.staging, ignore_errors=True)
        return f"{job.output} is complete already"
    with job.claimed():
        tasks = job.plan()
        with beam.Pipeline(options=options) as pipeline:
            build(beam, pipeline, job, tasks)
        return job.finish(tasks)


def build(beam: Any, pipeline: Any, job: Job, tasks: Sequence[Task]) -> None:
    """Adds the tasks of a job to a pipeline: convert them, find repeated ids, leave these out."""
    numbered = pipeline | "Tasks" >> beam.Create(list(enumerate(tasks))) | "Spread" >> beam.Reshuffle()
    repeats = (
        numbered
        | "Convert" >> beam.FlatMap(_convert, job)
        | "SameId" >> beam.GroupByKey()
        | "AllButTheFirst" >> beam.FlatMapTuple(_all_but_the_first)
        | "SameTask" >> beam.GroupByKey()
    )
    joined = {"task": numbered, "places": repeats} | "Join" >> beam.CoGroupByKey()
    _ = joined | "LeaveOut" >> beam.Map(_leave_out, job)


def _convert(numbered: tuple[int, Task], job: Job) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields (digest of the id, (task, place in the task)) of every record."""
    number, task = numbered
    for place, note in enumerate(np.fromfile(job.run(number, task), ID)):
        yield note.tobytes()[:16], (number, place)


def _all_but_the_first(digest: bytes, places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(places)[1:]


def _leave_out(grouped: tuple[int, Mapping[str, Iterable[Any]]], job: Job) -> None:
    number, joined = grouped
    for task in joined["task"]:
        for places in joined["places"]:
            job.leave_out(number, task, sorted(places))


def _absolute(options: argparse.Namespace) -> argparse.Namespace:
    """Other machines work in other folders; the name of a TFDS dataset is no path."""
    if options.format != "tfds" or Path(options.input).is_dir():
        options.input = str(Path(options.input).absolute())
    options.output = options.output.absolute()
    options.images = options.images and options.images.absolute()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: _convert_as(arguments), name="beam")


def _convert_as(arguments: Sequence[str] | None) -> str:
    options, flags = make_parser("data_prep.beam", __doc__).parse_known_args(arguments)
    return convert(make_job(_absolute(options)), flags)


if __name__ == "__main__":
    sys.exit(main())
