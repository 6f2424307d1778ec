import numpy as np
import pytest
from scipy.stats import spearmanr

from mmrpt_jax.dependency.agreement import auc, average_ranks, spearman


def test_average_ranks_by_hand():
    np.testing.assert_array_equal(average_ranks([30, 10, 20, 20]), [4, 1, 2.5, 2.5])


def test_spearman_by_hand():
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)


def test_spearman_with_ties_equals_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 5, size=(2, 12))
        assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3])])
def test_spearman_without_order_is_nan(first, second):
    assert np.isnan(spearman(first, second))


def test_auc_counts_ordered_pairs():
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = rng.integers(0, 6, size=15), rng.integers(0, 2, size=15)
        labels[:2] = (0, 1)
        pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
        assert auc(scores, labels) == pytest.approx(np.mean(pairs))


def test_auc_of_one_class_is_nan():
    assert np.isnan(auc([0.1, 0.2], [1, 1]))
    assert np.isnan(auc([0.1, 0.2], [0, 0]))


@pytest.mark.parametrize("function", [spearman, auc])
def test_unequal_lengths_raise(function):
    with pytest.raises(ValueError, match="got shapes"):
        function([1, 2, 3], [0, 1])
