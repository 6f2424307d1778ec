"""No dead keys: whatever a config holds, the program reads."""

import importlib
import re

import pytest

from tests.source_tree import ROOT

CONFIGS = sorted(
    path.stem for path in (ROOT / "experiments" / "configs").glob("*.py") if path.stem != "__init__"
)
READERS = [*(ROOT / "mmrpt_jax" / "stages").rglob("*.py"), ROOT / "experiments" / "launch.py"]
SOURCE = "\n".join(path.read_text() for path in READERS if not path.name.endswith("_test.py"))


def leaves(config, path=()):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def is_read(path):
    *groups, key = path
    # Read by name, or handed on as a whole as keyword arguments.
    whole = any(re.search(rf"\b{group}(\[\w+\])?\.to_dict\(\)", SOURCE) for group in groups)
    return whole or re.search(rf"\.{key}\b", SOURCE) is not None


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_read(name):
    config = importlib.import_module(f"experiments.configs.{name}").get_config()
    assert [".".join(path) for path in leaves(config) if not is_read(path)] == []


def test_a_dead_key_would_be_found():
    assert not is_read(("rl", "no_such_field"))
