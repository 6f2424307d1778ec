"""The one command for a GPU, rehearsed where there is none."""

import importlib
import json
import sys

import pytest

from experiments.benchmarks import on_gpu
from experiments.benchmarks.common.environments import Device

TINY = ["--size=tiny", "--alone", "--group=2", "--prompt=16", "--answer=3", "--tokens", "192", "--repeats=2"]


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setattr(on_gpu, "ask_device", lambda: Device("cpu", "an old laptop"))


def test_without_a_gpu_it_is_refused_in_a_sentence(tmp_path, capsys):
    assert on_gpu.main([f"--out={tmp_path / 'out'}"]) == 2
    assert "JAX sees no GPU here, but an old laptop: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_published_size_runs_on_a_gpu(monkeypatch):
    monkeypatch.setattr(on_gpu, "ask_device", lambda: Device("gpu", "a card"))
    assert on_gpu.check_device("qwen2_5_vl_3b") == "a card"


def test_benchmarks_take_the_flags_that_they_are_given(monkeypatch):
    for name, flags in on_gpu.plan(on_gpu.command_line([])).items():
        module = importlib.import_module(f"experiments.benchmarks.{name}")
        parse = lambda parser, measure, columns, title, argv: parser.parse_args(argv)  # noqa: E731
        monkeypatch.setattr(module, "run_benchmark", parse)
        options = module.main(flags)
        assert (options.size, options.dtype) == ("qwen2_5_vl_3b", "bfloat16")
        assert str(options.out) == f"runs/gpu/{name}"
        if name != "dependency":
            # Those that take several of each have lists.
            assert (
                options.group in (8, [8])
                and options.prompt in (1300, [1300])
                and options.answer in (512, [512])
            )
    assert options.tokens == [1024, 2048, 4096] and options.transformers


def test_where_one_fails_the_next_follows(monkeypatch, tmp_path, capsys):
    """In place of a benchmark, a program that writes a table with one row, or, as `update`, fails."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "name = sys.argv[2].rpartition('.')[2]\n"
        "print(name, os.environ['CUDA_VISIBLE_DEVICES'], os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE'))\n"
        "if name == 'update': sys.exit('out of memory')\n"
        "out = next(flag.partition('=')[2] for flag in sys.argv if flag.startswith('--out='))\n"
        "pathlib.Path(out + '.json').write_text(json.dumps({'rows': [{'of bandwidth': 0.625}]}))\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(on_gpu.sys, "executable", str(stand_in))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    out = tmp_path / "out"
    assert on_gpu.main([*TINY, f"--out={out}"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.endswith((" None", " false"))] == [
        "rollout 0 None",
        "update 0 None",
        "grpo_step 0 None",
        "dependency 0 false",
    ]
    assert "out of memory" in printed
    assert printed[-2:] == [
        "rollout: 62.5% of the measured bandwidth; the target of 60% is met",
        f"failed: update; {out / 'log.txt'} says why",
    ]
    assert (out / "log.txt").read_text().splitlines() == printed


def test_a_rehearsal_leaves_log_and_tables(monkeypatch, tmp_path):
    # As in tests: what counts is the time to compile.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    assert on_gpu.main([*TINY, f"--out={tmp_path}", "--only", "rollout", "dependency"]) == 0
    rows = {
        name: json.loads((tmp_path / f"{name}.json").read_text())["rows"]
        for name in ("rollout", "dependency")
    }
    assert [(row["G"], row["P"], row["R"]) for row in rows["rollout"]] == [(2, 16, 3)]
    assert [(row["T"], row["work"]) for row in rows["dependency"]] == [(192, "plain"), (192, "mass")]
    log = (tmp_path / "log.txt").read_text()
    assert "$ python -m experiments.benchmarks.rollout --size=tiny --dtype=bfloat16" in log
    assert "dependency: exit code 0 after " in log and "of the measured bandwidth" in log
