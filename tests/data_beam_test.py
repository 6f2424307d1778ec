"""The pipeline on Apache Beam makes the same files as the converter."""

import sys

import pytest

from data_prep import beam
from mmrpt_jax.data.manifest import read_manifest
from tests.data_folders import FLAGS, disturbed_folder, run


def run_beam(folder, output, *flags):
    return beam.main([f"--input={folder}", f"--output={output}", "--runner=DirectRunner", *FLAGS, *flags])


@pytest.fixture
def folder(tmp_path):
    return disturbed_folder(tmp_path / "in")


def test_beam_writes_the_same_dataset(folder, tmp_path):
    pytest.importorskip("apache_beam")
    assert run(folder, tmp_path / "here", *FLAGS) == 0
    assert run_beam(folder, tmp_path / "beam") == 0
    assert read_manifest(tmp_path / "beam") == read_manifest(tmp_path / "here")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "beam", "here"}


def test_a_missing_package_and_wrong_flags_give_one_sentence(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run_beam(folder, tmp_path / "out") == 2
    assert capsys.readouterr().err == "beam: Beam is not installed: pip install 'mmrpt_jax[beam]'\n"
    assert run_beam(folder, tmp_path / "out", "--preset=nothing") == 2
    assert "unknown preset" in capsys.readouterr().err
