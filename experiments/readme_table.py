"""Puts a finished run's table into the README: `python -m experiments.readme_table --workdir=runs/mmrpt_scenes`."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command
from mmrpt_jax.reporting.table import format_table
from mmrpt_jax.stages.results import read_results
from mmrpt_jax.stages.workdir import demand_files

# Method -> header in the README -> key of the results.
COLUMNS = {
    "mmrpt": {
        "arm": "arm",
        "filled, biased": "fill/biased/right",
        "filled, flipped": "fill/flipped/right",
        "colours filled, biased": "fill/biased/right/color",
        "colours filled, flipped": "fill/flipped/right/color",
        "cloze, biased": "cloze/biased",
        "cloze, flipped": "cloze/flipped",
        "fine-tuned, flipped": "finetuned/flipped",
    },
    "lvrpo": {
        "arm": "arm",
        "drawn": "drawn/biased",
        "drawn, exact numbers": "exact/biased",
        "drawn, held out": "drawn/held_out",
        "diversity": "diversity/biased",
        "answered": "questions/biased",
        "answered, flipped": "questions/flipped",
        "own verdicts": "verdicts/agreement",
        "gap": "gap",
    },
}


def rewrite(workdir: Path, readme: Path) -> str:
    """Puts the table of the run in `workdir` between the marks of its method; returns a sentence about it.

    Raises:
        ConfigError: the folder holds no finished run or study.
        UsageError: the page has no marks of that method.
    """
    demand_files(workdir, "results.json")
    method, rows = _method(workdir), read_results(workdir)
    shown = {header: key for header, key in COLUMNS[method].items() if key in rows[0]}
    table = format_table([_renamed(row, shown) for row in rows], list(shown), digits=2, markdown=True)
    block = re.compile(rf"(<!-- {method}:begin -->\n).*?(<!-- {method}:end -->)", re.DOTALL)
    text = readme.read_text()
    if not block.search(text):
        raise UsageError(f"{readme} has no marks {method}:begin and {method}:end")
    readme.write_text(block.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text))
    return f"{readme}: {len(rows)} arms of {workdir}"


def _method(workdir: Path) -> str:
    """The method of a run, or of the first run of a study."""
    run = next(iter(sorted(workdir.glob("seed-*"))), workdir)
    demand_files(run, "config.json")
    return json.loads((run / "config.json").read_text())["method"]


def _renamed(row: dict, shown: dict[str, str]) -> dict:
    values = {header: row.get(key) for header, key in shown.items()}
    return values | {f"{header}_ci95": row.get(f"{key}_ci95") for header, key in shown.items()}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.readme_table", description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a finished run or study")
    parser.add_argument(
        "--readme", type=Path, default=Path("README.md"), help="the page to rewrite (%(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: rewrite(**vars(_parser().parse_args(arguments))))


if __name__ == "__main__":
    sys.exit(main())
