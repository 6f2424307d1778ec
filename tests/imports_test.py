"""Importing any room loads neither torch nor tensorflow, whether or not they are installed."""

import os
import pkgutil
import subprocess
import sys

import mmrpt_jax

HEAVY = ("torch", "tensorflow")
PROBE = f"""
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print([name for name in {HEAVY} if name in sys.modules])
"""


def loaded(modules, stand_ins):
    """Which of `HEAVY` a fresh interpreter imports with `modules`; empty stand-ins answer for both names."""
    for name in HEAVY:
        (stand_ins / f"{name}.py").write_text("")
    path = os.pathsep.join([str(stand_ins), *filter(None, sys.path)])
    command = [sys.executable, "-c", PROBE, *modules]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_rooms_load_neither(tmp_path):
    rooms = [room.name for room in pkgutil.walk_packages(mmrpt_jax.__path__, "mmrpt_jax.") if room.ispkg]
    assert loaded(["mmrpt_jax", *rooms], tmp_path) == "[]"


def test_the_probe_notices(tmp_path):
    (tmp_path / "careless.py").write_text("import torch")
    assert loaded(["careless"], tmp_path) == "['torch']"
