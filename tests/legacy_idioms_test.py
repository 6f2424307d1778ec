"""No file uses an idiom that JAX has left behind: pmap, pjit, `with mesh:`, PRNGKey, tree_map and others."""

import ast

import pytest

from tests.source_tree import ROOT, python_files

RETIRED = {"pjit", "PRNGKey"}


def legacy_idioms(source: str) -> set[str]:
    """Names of the retired idioms in a source text; strings and comments do not count."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            dotted = [f"{module}.{alias.name}".strip(".") for alias in node.names]
        elif isinstance(node, ast.Attribute | ast.Name):
            dotted = [ast.unparse(node)]
        elif isinstance(node, ast.With):
            contexts = [item.context_expr for item in node.items]
            plain = [ast.unparse(c) for c in contexts if isinstance(c, ast.Attribute | ast.Name)]
            found |= {"with mesh" for name in plain if name.lower().endswith("mesh")}
            continue
        else:
            continue
        for name in dotted:
            parts = name.split(".")
            found |= ({"pmap"} | RETIRED) & set(parts)
            found |= {"jax.tree_map"} if name in ("jax.tree_map", "jax.tree_util.tree_map") else set()
            found |= (
                {"experimental shard_map"} if parts[:3] == ["jax", "experimental", "shard_map"] else set()
            )
    return found


def test_sources_are_free_of_them():
    found = {str(path): legacy_idioms((ROOT / path).read_text(encoding="utf-8")) for path in python_files()}
    # Ring 1 is tested under pmap, because people still use it.
    offenders = {
        path: names - ({"pmap"} if path.endswith("_test.py") else set()) for path, names in found.items()
    }
    assert {path: names for path, names in offenders.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "idiom"),
    [
        ("jax.pmap(f)(x)", "pmap"),
        ("from jax import pmap", "pmap"),
        ("from jax.experimental.pjit import pjit", "pjit"),
        ("with mesh:\n  f(x)", "with mesh"),
        ("with self.mesh, other():\n  f(x)", "with mesh"),
        ("jax.random.PRNGKey(0)", "PRNGKey"),
        ("from jax.random import PRNGKey as key", "PRNGKey"),
        ("jax.tree_map(f, tree)", "jax.tree_map"),
        ("from jax.experimental import shard_map", "experimental shard_map"),
        ("from jax.experimental.shard_map import shard_map", "experimental shard_map"),
        ("jax.experimental.shard_map.shard_map(f)", "experimental shard_map"),
    ],
)
def test_each_idiom_is_noticed(source, idiom):
    assert legacy_idioms(source) == {idiom}


@pytest.mark.parametrize(
    "source",
    [
        "with jax.set_mesh(mesh):\n  f(x)",
        "jax.tree.map(f, t)",
        "jax.shard_map(f)",
        "'runs under jit and pmap'  # pjit",
    ],
)
def test_present_day_idioms_pass(source):
    assert legacy_idioms(source) == set()
