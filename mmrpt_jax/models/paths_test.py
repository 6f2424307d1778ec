import re

import pytest

from mmrpt_jax.models.paths import check_pattern, matches, overlay, paths_of, split

TREE = {"decoder": {"layers": {"query": {"kernel": 1}, "mlp_norm": {"scale": 2}}}, "embedding": 3}
PATHS = ["decoder/layers/query/kernel", "decoder/layers/mlp_norm/scale", "embedding"]


def test_paths():
    assert sorted(paths_of(TREE)) == sorted(PATHS)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("embedding", [False, False, True]),
        ("decoder", [True, True, False]),
        ("decod", [False, False, False]),
        ("decoder/layers/(query|value)", [True, False, False]),
        (".*norm", [False, True, False]),
        ("query", [False, False, False]),
        ("decoder|embedding", [True, True, True]),
        (".*", [True, True, True]),
    ],
)
def test_a_pattern_matches_a_path_or_a_part_that_it_lies_in(pattern, found):
    assert [matches(pattern, path) for path in PATHS] == found


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("decoder/layer", "'decoder/layer' matches nothing, did you mean 'decoder/layers'?"),
        ("embeding", "'embeding' matches nothing, did you mean 'embedding'?"),
        ("(query", "is no regular expression"),
    ],
)
def test_a_pattern_that_means_nothing_is_told_of(pattern, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_pattern(pattern, PATHS)


def test_a_pattern_that_means_something_passes():
    check_pattern("decoder/layers/.*norm", PATHS)


def test_a_tree_taken_apart():
    kept, others = split(TREE, lambda path: path.endswith("kernel"))
    assert kept == {"decoder": {"layers": {"query": {"kernel": 1}}}}
    assert others == {"decoder": {"layers": {"mlp_norm": {"scale": 2}}}, "embedding": 3}
    assert overlay(others, kept) == overlay(kept, others) == TREE
    assert split(TREE, lambda path: True) == (TREE, {})


def test_overlay_replaces_leaves():
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    assert overlay(base, {"a": {"y": 4}}) == {"a": {"x": 1, "y": 4}, "b": 3}
    assert overlay(base, {}) == base
