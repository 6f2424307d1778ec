import dataclasses
import functools

import jax
import numpy as np
import pytest

from mmrpt_jax.evaluation.representations import effective_rank, gradient_cosine_by_group
from mmrpt_jax.models.unified_test import CONFIG
from mmrpt_jax.models.vlm_test import random_parameters


def test_rank_by_hand():
    # Singular values of ±a and ±b along two axes are a√2 and b√2.
    def cross(a, b):
        return np.array([[a, 0], [-a, 0], [0, b], [0, -b]])

    assert effective_rank(cross(1, 1)) == pytest.approx(2.0)
    assert effective_rank(cross(1, 0)) == pytest.approx(1.0)
    # Shares 3/4 and 1/4: exp(3/4 ln 4/3 + 1/4 ln 4) = (4/3)^(3/4) · 4^(1/4).
    assert effective_rank(cross(3, 1)) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_rank_knows_neither_place_nor_scale_nor_direction():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(32, 5)) * [4, 3, 2, 1, 0.5]
    turned, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert effective_rank(7 * states @ turned + 100) == pytest.approx(effective_rank(states))
    assert 1 < effective_rank(states) < 5


def test_rank_of_what_has_collapsed():
    same = np.tile(np.float32([0.1, 0.7, -1.3]), (7, 1))
    assert effective_rank(same) == 0.0
    assert effective_rank(np.zeros((3, 2))) == 0.0
    with pytest.raises(ValueError, match="1 state has no spread"):
        effective_rank(same[:1])


@pytest.fixture(scope="module")
def gradients():
    """Of a model with every kind of parameter."""
    return random_parameters(CONFIG)


def scaled(gradients, factor):
    """A copy, each leaf times `factor` of its path."""
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return jax.tree.map_with_path(lambda path, leaf: leaf * factor(name(path)), gradients)


def test_groups_of_parameters(gradients):
    def sign(path):
        """Each group turned in its own way, by what its parameters are called."""
        if path.startswith("decoder"):
            named = [part in path for part in ("query/", "key/", "value/", "out/", "/mlp/")]
            return (-1, -1, -1, -1, 0.5)[named.index(True)] if any(named) else 0
        return 2 if path.startswith(("vision", "latents")) else -3

    found = gradient_cosine_by_group(gradients, scaled(gradients, sign))
    assert found == pytest.approx(
        {
            "decoder/attention": -1,
            "decoder/mlp": 1,
            "embedding": -1,
            "generation": -1,
            "latents": 1,
            "vision": 1,
        },
        abs=1e-5,
    )
    assert gradient_cosine_by_group(scaled(gradients, sign), gradients).keys() == found.keys()
    # Norms were left out above, for there one side is zero.
    assert gradient_cosine_by_group(gradients, gradients)["decoder/norm"] == pytest.approx(1, abs=1e-5)


def test_a_cosine_is_that_of_all_leaves_of_the_group():
    def gradients(query, bias, out):
        return {"decoder": {"layers": {"query": {"kernel": query, "bias": bias}, "out": {"kernel": out}}}}

    a, b = (
        gradients(np.array([3.0]), np.zeros(2), np.array([[4.0]])),
        gradients(np.array([1.0]), np.ones(2), np.array([[1.0]])),
    )
    # (3 + 4) / (5 · √(1 + 2 + 1))
    assert gradient_cosine_by_group(a, b) == pytest.approx({"decoder/attention": 0.7})


def test_gradients_of_two_models_are_refused(gradients):
    dense = random_parameters(dataclasses.replace(CONFIG, experts="dense"))
    with pytest.raises(ValueError, match="the same parameters"):
        gradient_cosine_by_group(gradients, dense)
