import json
import math

import numpy as np

from mmrpt_jax.reporting.table import format_table, write_table

ROWS = [
    {"method": "base", "items": 512, "accuracy": 0.5},
    {
        "method": "MMRPT",
        "items": 64,
        "accuracy": np.float32(0.625),
        "accuracy_ci95": 0.0312,
        "note": "seed 0",
    },
    {"method": "a | b", "items": None, "accuracy": math.nan},
]
COLUMNS = ["method", "items", "accuracy"]


def test_text_by_hand():
    assert format_table(ROWS, COLUMNS, digits=2).split("\n") == [
        "method  items     accuracy",
        "──────  ─────  ───────────",
        "base      512         0.50",
        "MMRPT      64  0.62 ± 0.03",
        "a | b       –            –",
    ]


def test_markdown_by_hand():
    assert format_table(ROWS, COLUMNS, digits=1, markdown=True).split("\n") == [
        "| method | items |  accuracy |",
        "| ------ | ----: | --------: |",
        "| base   |   512 |       0.5 |",
        "| MMRPT  |    64 | 0.6 ± 0.0 |",
        "| a \\| b |     – |         – |",
    ]


def test_table_without_rows_is_its_header():
    assert format_table([], ["a", "bc"]) == "a  bc\n─  ──"


def test_written_files(tmp_path):
    write_table(tmp_path / "run.v1" / "final", ROWS, COLUMNS, title="Results", digits=2)
    folder = tmp_path / "run.v1"
    assert sorted(p.name for p in folder.iterdir()) == ["final.json", "final.txt"]
    assert (folder / "final.txt").read_text() == f"Results\n\n{format_table(ROWS, COLUMNS, digits=2)}\n"
    document = json.loads((folder / "final.json").read_text())
    assert (document["title"], document["columns"]) == ("Results", COLUMNS)
    assert document["rows"][1] == {
        "method": "MMRPT",
        "items": 64,
        "accuracy": 0.625,
        "accuracy_ci95": 0.0312,
        "note": "seed 0",
    }
    assert document["rows"][2]["accuracy"] is None
