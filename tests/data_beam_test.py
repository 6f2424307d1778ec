"""The pipeline on Apache Beam makes the same files as the converter."""

import pytest

from data_prep import beam
from mmrpt_jax.data.manifest import read_manifest
from tests.data_kill_test import FLAGS, folder, whole  # noqa: F401 - fixtures


def run(source, output, *flags):
    return beam.main([f"--input={source}", f"--output={output}", "--runner=DirectRunner", *FLAGS, *flags])


def test_beam_writes_the_same_dataset(folder, whole, tmp_path):  # noqa: F811
    pytest.importorskip("apache_beam")
    assert run(folder, tmp_path / "beam") == 0
    assert read_manifest(tmp_path / "beam") == read_manifest(whole)
    assert {path.name for path in tmp_path.iterdir()} == {"in", "beam", "whole"}


def test_a_missing_package_and_wrong_flags_give_one_sentence(folder, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setitem(beam.sys.modules, "apache_beam", None)
    assert run(folder, tmp_path / "out") == 2
    assert capsys.readouterr().err == "beam: Beam is not installed: pip install 'mmrpt_jax[beam]'\n"
    assert run(folder, tmp_path / "out", "--preset=nothing") == 2
    assert "unknown preset" in capsys.readouterr().err
