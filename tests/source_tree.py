"""The Python files of this repository and what they import, read without running them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_prep", "experiments", "mmrpt_jax", "tests")


def python_files(root: Path = ROOT, packages: tuple[str, ...] = PACKAGES) -> list[Path]:
    """Every `.py` file in `packages` and beside them but `setup.py`, sorted, relative to `root`.

    Without those of a folder `peers`: they are run by other programs' environments, and import nothing of ours.
    """
    beside = [path for path in root.glob("*.py") if path.name != "setup.py"]
    inside = [path for package in packages for path in (root / package).rglob("*.py")]
    return sorted(path.relative_to(root) for path in beside + inside if path.parent.name != "peers")


def is_test(path: Path) -> bool:
    """Whether pytest, and nothing else, loads this file."""
    return path.name.endswith("_test.py") or path.name == "conftest.py"


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as `a.b`, since `b` may be a module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}:{node.lineno} imports relatively; write the full name of the module"
                )
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names
