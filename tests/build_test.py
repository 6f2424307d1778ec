"""BUILD, the lock file and setup.py say the same as the tree."""

import ast
import re
from pathlib import Path

from tests.source_tree import ROOT, python_files
from tests.update_build import generate


def calls(text):
    """Rules of a BUILD file, whose syntax is Python's, as `(kind, {attribute: value})`."""
    nodes = [node.value for node in ast.parse(text).body if isinstance(node, ast.Expr)]
    for node in nodes:
        if isinstance(node, ast.Call) and node.func.id.startswith("py_"):
            yield node.func.id, {word.arg: ast.literal_eval(word.value) for word in node.keywords}


BUILD = (ROOT / "BUILD").read_text(encoding="utf-8")
RULES = list(calls(BUILD))
DEPS = {rule["name"]: rule.get("deps", []) for _, rule in RULES}


def normal(distribution):
    return re.sub(r"[-_.]+", "_", distribution).lower()


def setup_constant(name):
    """A literal that setup.py assigns to `name`."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py assigns no {name}")


def locked():
    """Distributions of the lock file with the versions pinned for the various Pythons."""
    versions = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements_lock.txt").read_text(), re.M
    ):
        versions.setdefault(normal(name), []).append(version)
    return versions


def test_build_is_what_the_tree_gives():
    assert generate() == BUILD, "run `python -m tests.update_build`"


def test_each_source_is_in_exactly_one_target():
    assert sorted(src for _, rule in RULES for src in rule["srcs"]) == sorted(map(str, python_files()))


def test_tests_run_under_pytest():
    tests = [rule for kind, rule in RULES if kind == "py_test"]
    assert {name for path in python_files() if (name := str(path)).endswith("_test.py")} == {
        src for rule in tests for src in rule["srcs"]
    }
    assert all(rule["main_module"] == "pytest" and rule["args"] == rule["srcs"] for rule in tests)


def test_targets_depend_on_targets_that_exist_and_never_in_a_circle():
    def visit(name, path):
        assert name not in path, f"{' -> '.join(path)} -> {name}"
        for dep in DEPS[name]:
            if dep.startswith(":"):
                visit(dep[1:], (*path, name))

    for name in DEPS:
        visit(name, ())


def test_third_party_labels_are_locked():
    labels = {
        dep.removeprefix("@pypi//") for deps in DEPS.values() for dep in deps if dep.startswith("@pypi//")
    }
    assert labels <= locked().keys()


def test_lock_meets_setup():
    versions = locked()
    for requirement in setup_constant("REQUIREMENTS") + setup_constant("EXTRAS")["test"]:
        name, low, high = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<([\d.]+))?", requirement).groups()
        for version in versions[normal(name)]:
            assert numbers(version) >= numbers(low), requirement
            assert not high or numbers(version) < numbers(high), requirement


def numbers(version):
    return [int(part) for part in version.split(".")]


def test_every_folder_of_sources_is_packaged():
    # setup.py finds packages by their `__init__.py`; a folder without one would be missing from the wheel.
    folders = {path.parent for path in python_files() if len(path.parts) > 1} - {Path("experiments/configs")}
    assert sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()) == []


def test_generated_text_by_hand(tmp_path):
    files = {
        "mmrpt_jax/__init__.py": "",
        "mmrpt_jax/inner/__init__.py": "from mmrpt_jax.inner.deep.a import f as f",
        "mmrpt_jax/inner/deep/a.py": "import os\nimport numpy as np\nfrom PIL import Image",
        "mmrpt_jax/inner/table.json": "{}",
        "mmrpt_jax/outer/b.py": "def f():\n    from mmrpt_jax import inner\n    import jax.numpy as jnp",
        "mmrpt_jax/outer/b_test.py": "import pytest\nfrom mmrpt_jax.outer import b",
        "tests/whole_test.py": "import mmrpt_jax.outer.b",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(calls(generate(tmp_path))) == [
        (
            "py_library",
            {
                "name": "inner",
                "srcs": ["mmrpt_jax/inner/__init__.py", "mmrpt_jax/inner/deep/a.py"],
                "data": ["mmrpt_jax/inner/table.json"],
                "deps": [":mmrpt_jax", "@pypi//numpy", "@pypi//pillow"],
            },
        ),
        ("py_library", {"name": "mmrpt_jax", "srcs": ["mmrpt_jax/__init__.py"]}),
        (
            "py_library",
            {
                "name": "outer",
                "srcs": ["mmrpt_jax/outer/b.py"],
                "deps": [":inner", ":mmrpt_jax", "@pypi//jax"],
            },
        ),
        (
            "py_test",
            {
                "name": "mmrpt_jax/outer/b_test",
                "srcs": ["mmrpt_jax/outer/b_test.py"],
                "args": ["mmrpt_jax/outer/b_test.py"],
                "data": ["pyproject.toml"],
                "main_module": "pytest",
                "deps": [":mmrpt_jax", ":outer", "@pypi//pytest"],
            },
        ),
        (
            "py_test",
            {
                "name": "tests/whole_test",
                "srcs": ["tests/whole_test.py"],
                "args": ["tests/whole_test.py"],
                "data": [":tree"],
                "main_module": "pytest",
                "deps": [":mmrpt_jax", ":outer", "@pypi//pytest"],
            },
        ),
    ]
