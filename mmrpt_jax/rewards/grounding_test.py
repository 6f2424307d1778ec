import itertools

import numpy as np
import pytest

from mmrpt_jax.rewards.grounding import POOLINGS, assign, grounding

EYE = np.eye(8)


def test_poolings_by_hand():
    """Two tokens e0, e1; patches e0, e0 and (e0 + e1)/√2: cosines (1, 1, s) and (0, 0, s)."""
    s = 0.5**0.5
    tokens, patches = EYE[:2], np.array([EYE[0], EYE[0], EYE[0] + EYE[1]])
    weights = np.exp(np.array([[1, 1, s], [0, 0, s]]) / 0.5)
    soft = (weights * [[1, 1, s], [0, 0, s]]).sum(axis=1) / weights.sum(axis=1)
    for pooling, expected in {
        "max": (1 + s) / 2,
        "top_k": (1 + s / 2) / 2,
        "mean": ((2 + s) / 3 + s / 3) / 2,
        "softmax": soft.mean(),
        "one_to_one": (1 + s) / 2,
    }.items():
        found = grounding(tokens, patches, pooling=pooling, top_k=2, temperature=0.5)
        assert found == pytest.approx(expected), pooling
    # The sums are (1, 1) and (2 + s, s).
    whole = (2 + 2 * s) / (2**0.5 * ((2 + s) ** 2 + s**2) ** 0.5)
    assert grounding(tokens, patches, global_weight=1.0) == pytest.approx(whole)
    assert grounding(tokens, patches, global_weight=0.25) == pytest.approx(0.75 * (1 + s) / 2 + 0.25 * whole)


def test_lengths_of_features_do_not_matter():
    rng = np.random.default_rng(0)
    tokens, patches = rng.normal(size=(3, 5)), rng.normal(size=(6, 5))
    for pooling in POOLINGS:
        one = grounding(tokens, patches, pooling=pooling, global_weight=0.3)
        assert one == pytest.approx(grounding(7 * tokens, patches / 9, pooling=pooling, global_weight=0.3))
        assert -1.0 <= one <= 1.0


def test_more_tokens_than_patches_leave_some_with_nothing():
    assert grounding(EYE[:4], EYE[:1], pooling="one_to_one") == pytest.approx(1 / 4)
    assert grounding(EYE[[0, 0]], EYE[:1], pooling="one_to_one") == pytest.approx(1 / 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (2, 5), (4, 6), (4, 2), (5, 1)])
def test_assignment_by_brute_force(shape):
    rng = np.random.default_rng(shape)
    height, width = shape
    for trial in range(30):
        # Coarse numbers make ties.
        scores = rng.normal(size=shape) if trial % 2 else rng.integers(-2, 3, shape).astype(float)
        partner = assign(scores)
        used = partner[partner >= 0]
        assert len(used) == min(shape) == len(set(used.tolist()))
        total = scores[np.flatnonzero(partner >= 0), used].sum()
        if height <= width:
            options = (scores[range(height), p].sum() for p in itertools.permutations(range(width), height))
        else:
            options = (scores[p, range(width)].sum() for p in itertools.permutations(range(height), width))
        assert total == pytest.approx(max(options))


def test_one_patch_that_answers_every_token_pleases_only_max():
    """A patch halfway between four tokens has cosine 1/2 with each; honest patches have 0.45 with one each."""
    tokens = EYE[:4]
    hack = np.array([EYE[:4].sum(axis=0), EYE[7], EYE[7], EYE[7]])
    honest = 0.45 * tokens + (1 - 0.45**2) ** 0.5 * np.roll(EYE[4:], 1, axis=0)
    assert grounding(tokens, hack) == pytest.approx(0.5)
    assert grounding(tokens, honest) == pytest.approx(0.45)
    assert grounding(tokens, hack, pooling="one_to_one") == pytest.approx(0.5 / 4)
    assert grounding(tokens, honest, pooling="one_to_one") == pytest.approx(0.45)


def collage_and_coherent():
    """Two tokens e0 and e1, 16 patches.

    The collage has one tile that is e0, one that is e1, and 14 about something else. The coherent image speaks of
    both everywhere: half of its patches lean to one token (cosine 0.8), half to the other (0.8), each with some of
    the other (0.5) and a remainder.
    """
    collage = np.array([EYE[0], EYE[1]] + 14 * [EYE[2]])
    rest = (1 - 0.8**2 - 0.5**2) ** 0.5
    lean = [0.8 * EYE[i % 2] + 0.5 * EYE[1 - i % 2] + rest * EYE[3 + i % 5] for i in range(16)]
    return EYE[:2], collage, np.array(lean)


def test_a_collage_beats_a_coherent_image_under_max_and_loses_one_to_one_with_a_global_term():
    tokens, collage, coherent = collage_and_coherent()
    assert grounding(tokens, collage) == pytest.approx(1.0)
    assert grounding(tokens, coherent) == pytest.approx(0.8)
    options = {"pooling": "one_to_one", "global_weight": 0.5}
    # The collage's sum is (1, 1, 14): cosine 2 / (√2 · √198).
    assert grounding(tokens, collage, **options) == pytest.approx(0.5 + 0.5 * 2 / (2 * 198) ** 0.5)
    # Along (1, 1)/√2, the coherent sum has 16 · 1.3/√2; its remainders 0.33 · (4, 3, 3, 3, 3).
    along, aside = 16 * 1.3 / 2**0.5, (0.11 * (16 + 4 * 9)) ** 0.5
    expected = 0.5 * 0.8 + 0.5 * along / (along**2 + aside**2) ** 0.5
    assert grounding(tokens, coherent, **options) == pytest.approx(expected)
    assert grounding(tokens, collage, **options) < 0.6 < 0.85 < grounding(tokens, coherent, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "median"}, "pooling"),
        ({"top_k": 0}, "top_k"),
        ({"temperature": 0.0}, "temperature"),
        ({"global_weight": 1.5}, "global_weight"),
    ],
)
def test_bad_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        grounding(EYE[:2], EYE, **change)


def test_features_without_a_direction_are_refused():
    with pytest.raises(ValueError, match="token features"):
        grounding(np.zeros((2, 8)), EYE)
    with pytest.raises(ValueError, match="patch features"):
        grounding(EYE, np.zeros((0, 8)))
