import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.dependency.thresholds import threshold

threshold_on_device = jax.jit(threshold, static_argnames=("kind", "quantile", "num_std", "value"))

KINDS = [
    {"kind": "quantile", "quantile": 0.7},
    {"kind": "mean_std", "num_std": 0.5},
    {"kind": "otsu"},
    {"kind": "fixed", "value": 0.25},
]


def _cases(count, length=9):
    rng = np.random.default_rng(0)
    for _ in range(count):
        # Coarse values make ties frequent; at least one score is valid.
        scores = rng.integers(-3, 6, size=length) / 4
        valid = rng.random(length) < 0.7
        valid[rng.integers(length)] = True
        yield scores, valid


def _best_classes(scores):
    """All two-class splits {x < s}, {x ≥ s} with the largest variance between classes, by trying them all."""
    best, upper = 0.0, [set(scores)]
    for cut in sorted(set(scores))[1:]:
        low, high = scores[scores < cut], scores[scores >= cut]
        between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
        if between > best + 1e-9:
            best, upper = between, [set(high)]
        elif between > best - 1e-9:
            upper.append(set(high))
    return upper


def test_quantile_equals_numpy_on_the_valid_scores():
    for (scores, valid), level in itertools.product(_cases(10), (0.0, 0.3, 0.7, 1.0)):
        tau = threshold(scores, valid, kind="quantile", quantile=level)
        np.testing.assert_allclose(tau, np.quantile(scores[valid], level), atol=1e-12)


def test_mean_std_equals_numpy_on_the_valid_scores():
    for scores, valid in _cases(10):
        tau = threshold(scores, valid, kind="mean_std", num_std=1.5)
        np.testing.assert_allclose(tau, scores[valid].mean() + 1.5 * scores[valid].std(), atol=1e-12)


def test_otsu_equals_brute_force():
    for scores, valid in _cases(60):
        tau = threshold(scores, valid, kind="otsu")
        assert tau in scores[valid]
        assert set(scores[valid & (scores >= tau)]) in _best_classes(scores[valid])


def test_otsu_by_hand():
    scores = np.array([0.1, 0.12, 0.9, 0.11, 0.8])
    assert threshold(scores, np.ones(5, bool), kind="otsu") == 0.8


def test_fixed_holds_for_integer_scores():
    assert threshold(np.array([0, 1]), np.ones(2, bool), kind="fixed", value=0.25) == 0.25


@pytest.mark.parametrize("options", KINDS)
def test_jax_equals_numpy_in_batches(options):
    scores, valid = (np.stack(part) for part in zip(*_cases(8), strict=True))
    expected = threshold(scores, valid, **options)
    actual = threshold_on_device(jnp.asarray(scores), jnp.asarray(valid), **options)
    assert isinstance(expected, np.ndarray)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("options", KINDS)
def test_no_valid_score_selects_nothing(options):
    assert threshold(np.array([0.3, 0.9]), np.zeros(2, bool), **options) == np.inf
    assert threshold(np.zeros(0), np.zeros(0, bool), **options) == np.inf
    assert threshold_on_device(jnp.asarray([0.3, 0.9]), jnp.zeros(2, bool), **options) == np.inf


@pytest.mark.parametrize("kind", ["quantile", "mean_std", "otsu"])
def test_equal_scores_are_all_selected(kind):
    for value in (0.1, 0.7, 1 / 3):
        scores, valid = np.full(7, value), np.ones(7, bool)
        assert (scores >= threshold(scores, valid, kind=kind)).all()
        scores = jnp.asarray(scores)
        assert (scores >= threshold_on_device(scores, jnp.asarray(valid), kind=kind)).all()


def test_unknown_kind_raises():
    with pytest.raises(ValueError, match="kind='median'"):
        threshold(np.ones(2), np.ones(2, bool), kind="median")
