import pytest

from mmrpt_jax.stages.mmrpt.evaluate import headline_columns
from mmrpt_jax.stages.study import over_seeds


def test_means_and_intervals_over_seeds_by_hand():
    tables = [
        [
            {"arm": "base", "cloze/a": a, "cloze/a_ci95": 9.0},
            {"arm": "mmrpt", "cloze/a": b, "cloze/a_ci95": 9.0},
        ]
        for a, b in ((0.5, 0.6), (0.5, 0.7), (0.5, 0.8))
    ]
    base, mmrpt = over_seeds(tables)
    assert base == {"arm": "base", "cloze/a": 0.5, "cloze/a_ci95": 0.0}
    # s = 0.1; t for two degrees of freedom is 4.303.
    assert mmrpt["cloze/a"] == pytest.approx(0.7)
    assert mmrpt["cloze/a_ci95"] == pytest.approx(4.303 * 0.1 / 3**0.5)


def test_two_seeds_and_one():
    (row,) = over_seeds([[{"arm": "x", "n": 0.0}], [{"arm": "x", "n": 2.0}]])
    # s = √2, one degree of freedom.
    assert row == {"arm": "x", "n": 1.0, "n_ci95": pytest.approx(12.706)}
    assert over_seeds([[{"arm": "x", "n": 1.0}]]) == [{"arm": "x", "n": 1.0}]


def test_the_columns_that_are_shown():
    row = {
        "arm": "base",
        "fill/biased/right": 0.5,
        "fill/biased/right_ci95": 0.1,
        "fill/biased/right/color": 0.4,
        "fill/biased/none": 0.2,
        "cloze/biased": 0.5,
        "cloze/biased_ci95": 0.1,
        "cloze/biased/color": 0.3,
        "finetuned/flipped": 0.1,
        "statements/majority": 0.55,
        "train_flops": 1e9,
    }
    shown = ["arm", "fill/biased/right", "cloze/biased", "finetuned/flipped", "statements/majority"]
    assert headline_columns([row]) == shown
