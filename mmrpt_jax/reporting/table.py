"""Result tables: one list of plain rows, shown as aligned text, as Markdown and as JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrpt_jax.reporting.jsonl import plain

MISSING = "–"
INTERVAL_SUFFIX = "_ci95"


def format_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, digits: int = 3, markdown: bool = False
) -> str:
    """Lays out `rows`, one line each, with columns of equal width: text to the left, numbers to the right.

    A number `row["accuracy"]` is shown as `0.512 ± 0.034` if `row["accuracy_ci95"]` holds half the width of
    its 95 % interval. A missing, None or NaN value is shown as a dash.

    Args:
        rows: plain values by column name; keys not in `columns` are not shown.
        columns: names of the columns to show, in order; they are the header.
        digits: decimals of floats.
        markdown: a GitHub table instead of text.
    """
    cells = [[_format_cell(row, column, digits) for column in columns] for row in rows]
    if markdown:
        cells = [[text.replace("|", "\\|") for text in texts] for texts in cells]
    widths = [max(map(len, texts)) for texts in zip(columns, *cells, strict=True)]
    numeric = [_is_numeric([row.get(column) for row in rows]) for column in columns]

    def line(texts: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    if markdown:
        rules = [f"{'-' * (w - 1)}:" if right else "-" * w for w, right in zip(widths, numeric, strict=True)]
    else:
        rules = ["─" * width for width in widths]
    return "\n".join([line(columns), line(rules), *map(line, cells)])


def write_table(
    path_stem: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str = "",
    digits: int = 3,
) -> None:
    """Writes `<path_stem>.txt` and `<path_stem>.json`: `title`, `columns`, and `rows` with all their keys."""
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    document = {"title": title, "columns": list(columns), "rows": plain(list(rows))}
    text = format_table(rows, columns, digits=digits)
    stem.with_name(stem.name + ".json").write_text(
        json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    stem.with_name(stem.name + ".txt").write_text(
        (f"{title}\n\n" if title else "") + text + "\n", encoding="utf-8"
    )


def _format_cell(row: Mapping[str, Any], column: str, digits: int) -> str:
    value, half_width = plain(row.get(column)), plain(row.get(column + INTERVAL_SUFFIX))
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    return text if half_width is None else f"{text} ± {half_width:.{digits}f}"


def _is_numeric(values: Sequence[Any]) -> bool:
    present = [value for value in map(plain, values) if value is not None]
    return bool(present) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)
