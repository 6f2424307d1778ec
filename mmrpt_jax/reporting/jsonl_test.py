import json

import numpy as np
import pytest

from mmrpt_jax.reporting.jsonl import JsonLines, plain, read_jsonl


def test_rewind_keeps_lines_and_appends_behind_them(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    lines = JsonLines(path)
    for step in range(4):
        lines.append({"step": step})
    lines.rewind(lambda record: record["step"] <= 1)
    lines.append({"step": 9})
    lines.close()
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 9}\n'
    assert [p.name for p in path.parent.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("left", "kept"), [('{"a": 1}\n{"a"', [{"a": 1}]), ('{"a"', []), ('{"a": 1}\n', [{"a": 1}])]
)
def test_opening_drops_a_line_cut_short(tmp_path, left, kept):
    path = tmp_path / "a.jsonl"
    path.write_text(left)
    lines = JsonLines(path)
    lines.append({"b": "é"})
    lines.close()
    assert read_jsonl(path) == [*kept, {"b": "é"}]


def test_broken_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is not JSON"):
        read_jsonl(path)


def test_plain_is_json_without_nan():
    record = {
        "x": np.float32(0.5),
        "y": np.array([[1.0, np.nan]]),
        "z": (float("inf"), "é", None, True),
        3: np.int64(4),
    }
    expected = {"x": 0.5, "y": [[1.0, None]], "z": [None, "é", None, True], "3": 4}
    assert json.loads(json.dumps(plain(record), allow_nan=False)) == expected
