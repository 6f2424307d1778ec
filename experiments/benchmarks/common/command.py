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
    title: Callable[[argparse.Namespace], str],
    argv: Sequence[str] | None,
) -> int:
    """Measures, prints the table, writes it if asked to; returns the exit code.

    Args:
        parser: of the command line.
        measure: what it asks for -> rows of the table.
        columns: of the table; one that no row has a value for is left out.
        title: what it asks for -> what was measured.
        argv: the command line; None: that of this process.
    """

    def command() -> str:
        options = parser.parse_args(argv)
        rows = measure(options)
        shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
        if options.out:
            write_table(options.out, rows, shown, title=title(options), digits=2)
        return format_table(rows, shown, digits=2)

    return run_command(command)
