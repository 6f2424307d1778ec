import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrpt_jax.data.preprocessing.sizes import BoundedEdges, FixedSize, PixelBudget

SIDES = st.integers(1, 5000)
BUDGET = PixelBudget(28, 56 * 56, 1280 * 28 * 28)
BAGEL = BoundedEdges(14, min_edge=224, max_edge=980, max_pixels=14 * 14 * 9 * 1024)


def test_fixed_size_is_fixed():
    assert FixedSize(224, 448).size(10, 9000) == (224, 448)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((280, 420), (280, 420)),
        ((294, 430), (280, 420)),  # 10.5 rounds to the even 10, 15.36 to 15
        ((10, 10), (56, 56)),
        ((28, 28), (56, 56)),
        # 2000 * 2000 pixels by 1280 * 784: a side of 1001.7 holds 35 multiples.
        ((2000, 2000), (980, 980)),
        ((20, 3000), (28, 2996)),  # 107.14 multiples; what rounds to nothing still has one
    ],
)
def test_pixel_budget_by_hand(size, expected):
    assert BUDGET.size(*size) == expected
    assert BUDGET.size(*size[::-1]) == expected[::-1]


@given(SIDES, SIDES)
def test_pixel_budget_keeps_its_promises(height, width):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="is too narrow: one side may be at most 200 times the other"):
            BUDGET.size(height, width)
        return
    tall, wide = BUDGET.size(height, width)
    assert tall % 28 == wide % 28 == 0
    assert tall * wide >= BUDGET.min_pixels
    assert tall * wide <= BUDGET.max_pixels or min(tall, wide) == 28


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((500, 700), (504, 700)),  # 35.7 strides round to 36
        ((1960, 980), (980, 490)),
        ((100, 100), (224, 224)),
        # The short side asks for 224 x 2240, the long side then takes it back to 98 x 980.
        ((100, 1000), (98, 980)),
        ((2, 900), (14, 980)),
    ],
)
def test_bounded_edges_by_hand(size, expected):
    assert BAGEL.size(*size) == expected
    assert BAGEL.size(*size[::-1]) == expected[::-1]


@given(SIDES, SIDES)
def test_bounded_edges_keep_the_long_side_and_the_stride(height, width):
    tall, wide = BAGEL.size(height, width)
    assert tall % 14 == wide % 14 == 0
    assert 14 <= min(tall, wide) <= max(tall, wide) <= 980
