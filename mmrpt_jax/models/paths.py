"""Parameters by path: which of a tree are meant, and trees taken apart and put together again.

A path is the keys of a nested dict joined by slashes, `decoder/layers/query/kernel`.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict


def path_of(key: tuple) -> str:
    """The path of a leaf, from the key that `jax.tree.map_with_path` gives it."""
    return "/".join(part.key for part in key)


def paths_of(params: dict) -> list[str]:
    """The paths of all leaves."""
    return list(flatten_dict(params, sep="/"))


def matches(pattern: str, path: str) -> bool:
    """Whether a regular expression matches all of a path, or a whole part that it lies in: `vision` means the tower."""
    return re.fullmatch(f"(?:{pattern})(?:/.*)?", path) is not None


def check_pattern(pattern: str, paths: Iterable[str]) -> None:
    """Checks that a pattern means something.

    Raises:
        ValueError: it is no regular expression, or matches none of `paths`; the message names the nearest.
    """
    paths = list(paths)
    try:
        found = any(matches(pattern, path) for path in paths)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if not found:
        parts = {path[:end] for path in paths for end in (*_slashes(path), len(path))}
        (near,) = difflib.get_close_matches(pattern, sorted(parts), n=1, cutoff=0.0)
        raise ValueError(f"{pattern!r} matches nothing, did you mean {near!r}?")


def _slashes(path: str) -> list[int]:
    return [place for place, letter in enumerate(path) if letter == "/"]


def split(params: dict, keep: Callable[[str], bool]) -> tuple[dict, dict]:
    """Two trees of the leaves whose paths are kept, and of the others; `overlay` puts them together."""
    flat = flatten_dict(params, sep="/")
    kept, others = ({path: x for path, x in flat.items() if keep(path) is side} for side in (True, False))
    return unflatten_dict(kept, sep="/"), unflatten_dict(others, sep="/")


def overlay(base: dict, above: dict) -> dict:
    """The tree `base` with the leaves of `above` in place of its own, or beside them."""
    merged: dict[str, Any] = flatten_dict(base, sep="/") | flatten_dict(above, sep="/")
    return unflatten_dict(merged, sep="/")
