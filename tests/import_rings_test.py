"""Holds the import graph of `mmrpt_jax` to the table of rings in STYLE.md."""

import functools
import re
import sys

from tests.source_tree import ROOT, imported_names, is_test, python_files

STYLE = (ROOT / "STYLE.md").read_text(encoding="utf-8")
TABLE = {
    int(ring): (rooms, allowed) for ring, rooms, allowed in re.findall(r"\| (\d) \| (.*?) \| (.*?) \|", STYLE)
}
RING = {room: ring for ring, (rooms, _) in TABLE.items() for room in re.findall(r"`(\w+)`", rooms)}
FILES = [path for path in python_files() if path.parts[0] == "mmrpt_jax" and len(path.parts) > 2]
SOURCES = [path for path in FILES if not is_test(path)]


@functools.cache
def imports_of(path):
    return imported_names(ROOT / path)


def tops_of(path):
    return {name.split(".")[0] for name in imports_of(path)}


def offenders(paths, offence):
    """What each file imports against a rule, by file."""
    found = {str(path): sorted(offence(path)) for path in paths}
    return {path: names for path, names in found.items() if names}


def third_party(ring):
    """Top-level modules that the table allows to a ring on top of the standard library."""
    words = {word for lower in range(1, ring + 1) for word in re.findall(r"\w+", TABLE[lower][1])}
    return words | ({"tensorflow_datasets"} if "tfds" in words else set())


def test_table_is_read():
    assert RING["objectives"] == 1
    assert RING["models"] == 2
    assert RING["training"] == 3
    assert {"numpy", "jax", "chex", "jaxtyping"} <= third_party(1)
    assert "flax" not in third_party(1)
    assert {"flax", "optax", "jax"} <= third_party(2)


def test_every_room_has_a_ring():
    assert {path.parts[1] for path in FILES} <= RING.keys()


def test_rooms_import_inward():
    def outward(path):
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("mmrpt_jax.")}
        return {room for room in rooms & RING.keys() if RING[room] > RING.get(path.parts[1], 3)}

    assert offenders(FILES, outward) == {}


def test_inner_rings_import_only_what_the_table_allows():
    def disallowed(path):
        own = {"mmrpt_jax"} | sys.stdlib_module_names
        return tops_of(path) - own - third_party(RING[path.parts[1]])

    assert offenders([path for path in SOURCES if RING.get(path.parts[1]) in (1, 2)], disallowed) == {}


def test_nothing_inside_imports_the_outside():
    assert offenders(FILES, lambda path: tops_of(path) & {"experiments", "data_prep", "tests"}) == {}


def test_only_models_imports_linen():
    def linen(path):
        return {name for name in imports_of(path) if name.startswith("flax.linen")}

    assert offenders([path for path in SOURCES if path.parts[1] != "models"], linen) == {}


def test_only_the_checkpoint_file_imports_orbax():
    others = [path for path in SOURCES if path.parts[1:] != ("training", "checkpoint.py")]
    assert offenders(others, lambda path: tops_of(path) & {"orbax"}) == {}


def test_nothing_imports_torch_or_tensorflow():
    # Parity tests reach torch through `pytest.importorskip`, which is a call.
    assert (
        offenders(python_files(), lambda path: tops_of(path) & {"torch", "torchvision", "tensorflow"}) == {}
    )
