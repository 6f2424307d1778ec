"""Writes BUILD: one `py_library` per room, one `py_test` per test file, deps from the real imports.

    python -m tests.update_build

A room is a folder of `mmrpt_jax` with everything below it, or one of `experiments`, `data_prep` and `tests`.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.source_tree import PACKAGES, ROOT, imported_names, python_files

HEADER = '''"""Bazel targets of mmrpt_jax, written by `python -m tests.update_build`."""

load("@rules_python//python:defs.bzl", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
'''
# Tests in `tests/` read the tree itself: sources, configs, README, this file.
TREE = """
filegroup(
    name = "tree",
    srcs = glob(
        ["**"],
        exclude = [
            ".git/**",
            ".venv/**",
            "bazel-*/**",
            "runs/**",
        ],
    ),
)
"""
# Import names whose distribution is called something else (a hyphen reads as an underscore).
DISTRIBUTIONS = {
    "absl": "absl_py",
    "PIL": "pillow",
    "orbax": "orbax_checkpoint",
    "tensorboardX": "tensorboardx",
}
DATA_SUFFIXES = (".json", ".safetensors")


def owner(path: Path) -> str:
    """Name of the target that holds a file: its room, or for a test its own path without the suffix."""
    if path.name.endswith("_test.py"):
        return str(path.with_suffix(""))
    if len(path.parts) == 1:
        return path.stem
    return path.parts[1] if path.parts[0] == "mmrpt_jax" and len(path.parts) > 2 else path.parts[0]


def dependencies(root: Path, path: Path, sources: set[Path]) -> set[str]:
    """Labels of the targets that a file's imports load, `__init__.py` of the packages on the way included."""
    labels = set()
    for name in imported_names(root / path):
        parts = name.split(".")
        top = parts[0]
        if top in PACKAGES:
            prefixes = [Path(*parts[: i + 1]) for i in range(len(parts))]
            candidates = [
                p for prefix in prefixes for p in (prefix / "__init__.py", prefix.with_suffix(".py"))
            ]
            labels.update(f":{owner(p)}" for p in candidates if p in sources)
        elif top not in sys.stdlib_module_names:
            labels.add(f"@pypi//{DISTRIBUTIONS.get(top, top.lower())}")
    return labels


def rule(kind: str, name: str, **attributes: Iterable[str] | str) -> str:
    """One rule in buildifier's layout; empty attributes are left out."""
    lines = [f"    name = {json.dumps(name)},"]
    for key, value in attributes.items():
        items = [value] if isinstance(value, str) else sorted(value, key=label_order)
        if isinstance(value, str) or len(items) == 1:
            text = json.dumps(value if isinstance(value, str) else items)
            lines.append(f"    {key} = {text},")
        elif items:
            lines += [f"    {key} = [", *(f"        {json.dumps(item)}," for item in items), "    ],"]
    return "\n".join([f"\n{kind}(", *lines, ")\n"])


def label_order(label: str) -> tuple[bool, list[str]]:
    """Sorts as buildifier does: local labels first, then by the parts of the path."""
    return label.startswith("@"), re.split(r"[./:]", label)


def generate(root: Path = ROOT) -> str:
    """The text of BUILD for the tree under `root`."""
    paths = python_files(root)
    sources, deps, data = defaultdict(set), defaultdict(set), defaultdict(set)
    for path in paths:
        sources[owner(path)].add(str(path))
        deps[owner(path)] |= dependencies(root, path, set(paths)) - {f":{owner(path)}"}
    for path in (p.relative_to(root) for p in root.glob("mmrpt_jax/**/*") if p.suffix in DATA_SUFFIXES):
        data[owner(path)].add(str(path))
    text = HEADER + TREE
    for name in sorted(sources):
        if not name.endswith("_test"):
            text += rule("py_library", name, srcs=sources[name], data=data[name], deps=deps[name])
    for name in sorted(sources):
        if name.endswith("_test"):
            text += test_rule(name, sources[name], deps[name], ":conftest" if "conftest" in sources else None)
    return text


def test_rule(name: str, srcs: set[str], deps: set[str], conftest: str | None) -> str:
    """A `py_test` that hands its file to pytest; merely run, a file of test functions would do nothing."""
    return rule(
        "py_test",
        name,
        srcs=srcs,
        args=srcs,
        data={":tree"} if name.startswith("tests/") else {"pyproject.toml"},
        main_module="pytest",
        deps=deps | {"@pypi//pytest"} | ({conftest} if conftest else set()),
    )


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(generate(), encoding="utf-8")
