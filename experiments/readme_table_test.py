import json

import pytest

from experiments import readme_table, ship_base

PAGE = "Before.\n<!-- lvrpo:begin -->\nold\n<!-- lvrpo:end -->\nBehind.\n"
ROWS = [{"arm": "base", "drawn/biased": 0.125, "drawn/biased_ci95": 0.0625, "gap": -0.5, "other": 1.0}]
TABLE = """| arm  |       drawn |   gap |
| ---- | ----------: | ----: |
| base | 0.12 ± 0.06 | -0.50 |"""


def put(folder, name, value):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(value))


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


# Of a study, the runs know the method.
@pytest.mark.parametrize("place", [".", "seed-1"])
def test_the_table_stands_between_the_marks_of_its_method(page, tmp_path, place):
    run = tmp_path / "run"
    put(run, "results.json", {"rows": ROWS})
    put(run / place, "config.json", {"method": "lvrpo"})
    assert readme_table.main([f"--workdir={run}", f"--readme={page}"]) == 0
    assert page.read_text() == PAGE.replace("old", TABLE)


def test_a_page_without_the_marks_is_told_and_left_alone(page, tmp_path, capsys):
    put(tmp_path, "results.json", {"rows": ROWS})
    put(tmp_path, "config.json", {"method": "mmrpt"})
    assert readme_table.main([f"--workdir={tmp_path}", f"--readme={page}"]) == 2
    assert capsys.readouterr().err == f"error: {page} has no marks mmrpt:begin and mmrpt:end\n"
    assert page.read_text() == PAGE


@pytest.mark.parametrize(
    ("main", "there", "missing"),
    [
        (readme_table.main, [], "results.json"),
        (readme_table.main, ["results.json"], "config.json"),
        (ship_base.main, [], "config.json"),
        (ship_base.main, ["config.json", "tokenizer.json"], "base/weights.safetensors"),
    ],
)
def test_a_folder_without_a_finished_run_is_told(main, there, missing, tmp_path, capsys):
    for name in there:
        put(tmp_path, name, {"rows": []})
    assert main([f"--workdir={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} holds no finished run: there is no {missing} in it\n"
    )
