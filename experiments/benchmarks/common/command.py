"""What the commands of all benchmarks share: flags, the table that is printed, the files that are written."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmrpt_jax.reporting.command_line import Parser, run_command
from mmrpt_jax.reporting.table import format_table, write_table


def benchmark_parser(name: str, description: str | None, *, repeats: int) -> Parser:
    """A parser with the flags of every benchmark; `repeats` is the default."""
    parser = Parser(prog=f"python -m experiments.benchmarks.{name}", description=description)
    parser.add_argument("--repeats", type=several, default=repeats, help="measurements of each, at least 2")
    parser.add_argument("--out", type=Path, help="stem of <out>.json and <out>.txt")
    return parser


def several(text: str) -> int:
    """A number of measurements that have a spread."""
    if (value := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{value} measurement has no spread: ask for 2 or more")
    return value


def run_benchmark(
    parser: Parser,
    measure: Callable[[argparse.Namespace], Sequence[dict[str, Any]]],
    columns: Sequence[str],
    title: str,
    argv: Sequence[str] | None,
) -> int:
    """Measures, prints the table, writes it if asked to; returns the exit code."""

    def command() -> str:
        options = parser.parse_args(argv)
        rows = measure(options)
        if options.out:
            write_table(options.out, rows, columns, title=title, digits=2)
        return format_table(rows, columns, digits=2)

    return run_command(command)
