import numpy as np
import pytest

from mmrpt_jax.reporting.contact_sheet import contact_sheet
from mmrpt_jax.reporting.gallery import RIGHT, WRONG

# Every image has one colour of its own: (10, prompt, member).
IMAGES = np.array([[[[(10, 50 * b, 20 * g)] * 4] * 4 for g in range(3)] for b in range(2)], np.uint8)
ADVANTAGES = np.array([[1.5, -0.75, np.nan], [0.0, 0.004, -0.004]])
PROMPTS = ["a red circle .", "two crosses ."]


def sheet(prompts=PROMPTS, images=IMAGES, advantages=ADVANTAGES, **options):
    return contact_sheet(prompts, images, advantages, **options)


def place(picture, colour):
    """Left, top, number of pixels of a colour."""
    ys, xs = np.nonzero((np.asarray(picture) == colour).all(-1))
    return (xs.min(), ys.min(), len(xs)) if len(xs) else None


def test_rows_are_prompts_and_columns_members():
    found = [[place(sheet(), (10, 50 * b, 20 * g)) for g in range(3)] for b in range(2)]
    assert all(count == 128 * 128 for row in found for *_, count in row)
    assert [x for x, _, _ in found[0]] == [x for x, _, _ in found[1]] == [44, 44 + 140, 44 + 280]
    assert [len({y for _, y, _ in row}) for row in found] == [1, 1]
    assert found[1][0][1] > found[0][0][1] + 128


def test_the_sign_of_an_advantage_is_a_colour():
    above = np.full((2, 3), 0.5)
    assert place(sheet(advantages=above), RIGHT) and not place(sheet(advantages=above), WRONG)
    assert place(sheet(advantages=-above), WRONG) and not place(sheet(advantages=-above), RIGHT)
    # What teaches nothing has neither: none, zero, and what rounds to zero.
    quiet = np.array([[np.nan, 0.0, -0.0], [0.004, -0.004, np.nan]])
    assert not place(sheet(advantages=quiet), RIGHT) and not place(sheet(advantages=quiet), WRONG)
    # The first is under the first image, the second under the second.
    mixed = sheet()
    assert 44 < place(mixed, RIGHT)[0] < 44 + 128 < place(mixed, WRONG)[0] < 44 + 140 + 128


def test_nothing_is_cut_off():
    edges = np.asarray(sheet(["many words " * 40, "w" * 300], title="step 20 " * 20)).copy()
    edges[40:-40, 40:-40] = 255
    assert (edges == 255).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": ["one"]},
        {"advantages": np.zeros((2, 2))},
        {"images": IMAGES[:1]},
        {"prompts": [], "images": IMAGES[:0], "advantages": np.zeros((0, 3))},
    ],
)
def test_numbers_that_disagree_are_refused(changes):
    with pytest.raises(ValueError, match=r"contact sheet: \d prompts"):
        sheet(**changes)
