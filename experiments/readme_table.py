"""Puts a finished run's table into the README: `python -m experiments.readme_table --workdir=runs/mmrpt_scenes`."""

import re
from pathlib import Path

from absl import app, flags

from mmrpt_jax.reporting.table import format_table
from mmrpt_jax.stages.results import read_results

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run or study.", required=True)
_README = flags.DEFINE_string("readme", "README.md", "The file to rewrite, between its results marks.")

# Header in the README -> key of the results.
COLUMNS = {
    "arm": "arm",
    "filled, biased": "fill/biased/right",
    "filled, flipped": "fill/flipped/right",
    "colours filled, biased": "fill/biased/right/color",
    "colours filled, flipped": "fill/flipped/right/color",
    "cloze, biased": "cloze/biased",
    "cloze, flipped": "cloze/flipped",
    "fine-tuned, flipped": "finetuned/flipped",
}
_BLOCK = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)


def main(_: list[str]) -> None:
    """Entry point."""
    rows = read_results(Path(_WORKDIR.value))
    shown = {header: key for header, key in COLUMNS.items() if key in rows[0]}
    table = format_table([_renamed(row, shown) for row in rows], list(shown), digits=2, markdown=True)
    readme = Path(_README.value)
    text = readme.read_text()
    if not _BLOCK.search(text):
        raise app.UsageError(f"{readme} has no results:begin and results:end marks")
    readme.write_text(_BLOCK.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text))


def _renamed(row: dict, shown: dict[str, str]) -> dict:
    values = {header: row.get(key) for header, key in shown.items()}
    return values | {f"{header}_ci95": row.get(f"{key}_ci95") for header, key in shown.items()}


if __name__ == "__main__":
    app.run(main)
