import jax
import numpy as np
import pytest

from mmrpt_jax.sampling.guidance import Guidance, guide

RNG = np.random.default_rng(0)
FULL, TEXTLESS, IMAGELESS = RNG.normal(size=(3, 2, 4, 5, 6))


def length(v):
    return np.sqrt((v**2).sum((-2, -1), keepdims=True))


def test_text_guidance_moves_away_from_the_textless_velocity():
    found = guide(FULL, TEXTLESS, None, Guidance(text=4.0, renorm="none"))
    np.testing.assert_allclose(found, TEXTLESS + 4.0 * (FULL - TEXTLESS), rtol=1e-5, atol=1e-5)


def test_images_come_after_the_text():
    found = guide(FULL, TEXTLESS, IMAGELESS, Guidance(text=4.0, image=1.5, renorm="none"))
    first = TEXTLESS + 4.0 * (FULL - TEXTLESS)
    np.testing.assert_allclose(found, IMAGELESS + 1.5 * (first - IMAGELESS), rtol=1e-5, atol=1e-5)
    found = guide(FULL, None, IMAGELESS, Guidance(image=1.5, renorm="none"))
    np.testing.assert_allclose(found, IMAGELESS + 1.5 * (FULL - IMAGELESS), rtol=1e-5, atol=1e-5)


def test_renormalised_velocities_are_as_long_as_conditional_ones():
    guidance = Guidance(text=4.0)
    found = guide(FULL, TEXTLESS, None, guidance)
    plain = TEXTLESS + 4.0 * (FULL - TEXTLESS)
    np.testing.assert_allclose(length(found), length(FULL), rtol=1e-5)
    np.testing.assert_allclose(found / length(found), plain / length(plain), rtol=1e-4, atol=1e-6)
    # Image by image: one that is very long shortens no other.
    long = FULL.copy()
    long[0, 0] *= 1e3
    np.testing.assert_array_equal(guide(long, TEXTLESS, None, guidance)[1], found[1])


def test_shorter_velocities_stay_and_the_factor_has_a_floor():
    # Halfway to the conditional velocity's opposite: shorter than it.
    opposite = Guidance(text=1.25)
    np.testing.assert_allclose(guide(FULL, 3 * FULL, None, opposite), 0.5 * FULL, rtol=1e-5)
    found = guide(FULL, -FULL, None, Guidance(text=4.0, renorm_min=0.3))
    np.testing.assert_allclose(found, 7 * FULL * 0.3, rtol=1e-5)


def test_the_interval_is_open_below_and_closed_above():
    guidance = Guidance(text=2.0, interval=(0.4, 0.9))
    covered = guidance.covers(np.array([0.3, 0.4, 0.41, 0.9, 0.95]))
    np.testing.assert_array_equal(covered, [False, False, True, True, False])
    assert not guidance.always
    assert Guidance(interval=(0.0, 1.0)).always


def test_velocities_of_zero_have_a_gradient():
    zero = np.zeros((1, 2, 3))
    gradient = jax.grad(lambda v: guide(v, zero, None, Guidance(text=4.0)).sum())(zero)
    assert np.isfinite(gradient).all()


def test_unknown_renormalisation_is_refused():
    with pytest.raises(ValueError, match="renorm is 'channel'; it must be 'global' or 'none'"):
        Guidance(renorm="channel")
