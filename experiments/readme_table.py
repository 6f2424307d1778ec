"""Puts a finished run's table into the README: `python -m experiments.readme_table --workdir=runs/mmrpt_scenes`."""

import json
import re
from pathlib import Path

from absl import app, flags

from mmrpt_jax.reporting.table import format_table
from mmrpt_jax.stages.results import read_results

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run or study.", required=True)
_README = flags.DEFINE_string("readme", "README.md", "The file to rewrite, between its results marks.")

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


def main(_: list[str]) -> None:
    """Entry point."""
    workdir, readme = Path(_WORKDIR.value), Path(_README.value)
    method, rows = _method(workdir), read_results(workdir)
    shown = {header: key for header, key in COLUMNS[method].items() if key in rows[0]}
    table = format_table([_renamed(row, shown) for row in rows], list(shown), digits=2, markdown=True)
    block = re.compile(rf"(<!-- {method}:begin -->\n).*?(<!-- {method}:end -->)", re.DOTALL)
    text = readme.read_text()
    if not block.search(text):
        raise app.UsageError(f"{readme} has no marks {method}:begin and {method}:end")
    readme.write_text(block.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text))


def _method(workdir: Path) -> str:
    """The method of a run, or of the first run of a study."""
    config = next(iter([*workdir.glob("config.json"), *sorted(workdir.glob("seed-*/config.json"))]))
    return json.loads(config.read_text())["method"]


def _renamed(row: dict, shown: dict[str, str]) -> dict:
    values = {header: row.get(key) for header, key in shown.items()}
    return values | {f"{header}_ci95": row.get(f"{key}_ci95") for header, key in shown.items()}


if __name__ == "__main__":
    app.run(main)
