import numpy as np
import pytest

from mmrpt_jax.reporting.colours import dependency_colours, lightness, normalise


def test_lightness_of_known_colours():
    # L* of black, white, mid grey 119 and pure red, as tabulated for sRGB.
    rgb = np.array([(0, 0, 0), (255, 255, 255), (119, 119, 119), (255, 0, 0)])
    np.testing.assert_allclose(lightness(rgb), [0.0, 100.0, 50.03, 53.24], atol=0.02)


def test_scale_darkens_in_even_steps():
    steps = np.diff(lightness(dependency_colours(np.linspace(0, 1, 9))))
    assert (steps < 0).all()
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.2)


def test_ends_and_what_lies_beyond():
    colours = dependency_colours(np.array([[-3.0, 0.0], [1.0, 7.0]]))
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[[251, 246, 235]] * 2, [[93, 34, 101]] * 2]


def test_normalise_by_hand():
    levels, low, high = normalise(np.array([2.0, np.nan, 4.0, 3.0]))
    np.testing.assert_array_equal(levels, [0.0, np.nan, 1.0, 0.5])
    assert (low, high) == (2.0, 4.0)
    assert normalise(np.full(3, 5.0))[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("scores", [[], [np.nan, np.nan], [1.0, np.inf]])
def test_scores_without_a_range_are_refused(scores):
    with pytest.raises(ValueError, match="at least one finite"):
        normalise(np.array(scores))
