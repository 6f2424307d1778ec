import json
import time

from experiments.benchmarks.overlap import main, make_judge


def test_the_judge_takes_so_many_requests_at_a_time(monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    assert make_judge(0.5, 4)(completions=["a", "bb"] * 4 + ["ccc"]) == [1, 0] * 4 + [1]
    assert make_judge(0.5, 16)(completions=["a"] * 9) == [1] * 9
    assert make_judge(0.0, 4)(completions=["a"]) == [1]
    assert waited == [1.5, 0.5, 0.0]


def test_every_latency_meets_every_number_of_parts(tmp_path, capsys):
    sizes = [
        "--size=tiny",
        "--prompts=2",
        "--group=2",
        "--prompt=8",
        "--answer=2",
        "--width=1",
        "--repeats=2",
    ]
    assert main([*sizes, "--parts", "1", "2", "--latency", "0", "0.01", f"--out={tmp_path / 'found'}"]) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [(row["latency s"], row["parts"]) for row in rows] == [(0, 1), (0, 2), (0.01, 1), (0.01, 2)]
    assert [row["of one part"] for row in rows][::2] == [1, 1]
    assert all(row["lower"] <= row["step s"] <= row["upper"] for row in rows)
    assert "of one part" in capsys.readouterr().out
