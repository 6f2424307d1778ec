import numpy as np
import pytest

from mmrpt_jax.reporting.gallery import RIGHT, WRONG, GalleryRow, enlarge, gallery, mark
from mmrpt_jax.scenes import Verdict

YES, NO = Verdict(True, "as asked"), Verdict(False, "no blue square")
TEAL = np.full((8, 8, 3), (1, 99, 98), np.uint8)
PLUM = np.full((8, 8, 3), (97, 2, 96), np.uint8)


def row(*verdicts, prompt="a red circle and a blue square .", images=(TEAL, PLUM)):
    return GalleryRow(prompt, images[: len(verdicts)], verdicts)


def pixels(picture):
    """Every colour of a picture with the number of its pixels."""
    return {colour: count for count, colour in picture.getcolors(picture.width * picture.height)}


def test_panels_are_enlarged_whole_and_side_by_side():
    picture = gallery([row(NO, YES)], ["base", "lvrpo"])
    found = np.asarray(picture)
    assert picture.mode == "RGB"
    for colour, other in (((1, 99, 98), (97, 2, 96)), ((97, 2, 96), (1, 99, 98))):
        ys, xs = np.nonzero((found == colour).all(-1))
        # A square of 256 pixels and nothing drawn over it.
        assert len(ys) == 256 * 256 and np.ptp(ys) == np.ptp(xs) == 255
        other_ys, other_xs = np.nonzero((found == other).all(-1))
        assert ys.min() == other_ys.min()
        assert xs.max() < other_xs.min() or other_xs.max() < xs.min()


def test_verdicts_have_their_colours():
    both, wrong = pixels(gallery([row(NO, YES)], ["a", "b"])), pixels(gallery([row(NO, NO)], ["a", "b"]))
    right = pixels(gallery([row(YES, YES)], ["a", "b"]))
    assert RIGHT in both and WRONG in both
    assert RIGHT not in wrong and WRONG not in right
    assert wrong[WRONG] > both[WRONG]


def test_marks_are_a_disc_with_a_white_stroke():
    for correct, colour in ((True, RIGHT), (False, WRONG)):
        sign = mark(correct, 40)
        assert sign.size == (40, 40)
        assert sign.getpixel((0, 0))[3] == 0
        assert sign.getpixel((20, 3)) == (*colour, 255)
    assert mark(False, 40).getpixel((20, 20)) == (255, 255, 255, 255)
    # The check's lowest point lies left of the middle, below it.
    assert min(mark(True, 40).getpixel((17, 26))[:3]) > 200
    assert mark(True, 40).getpixel((20, 12)) == (*RIGHT, 255)


def test_pixels_keep_sharp_edges():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 1] = 255
    large = np.asarray(enlarge(image, 8))
    assert large.shape == (8, 8, 3)
    assert (large[:4, 4:] == 255).all()
    assert large.astype(int).sum() == 16 * 3 * 255


def test_nothing_is_cut_off():
    """The margin stays white however long the texts are."""
    long = "a picture of " + "many " * 60 + "n" * 80 + " ."
    picture = gallery(
        [row(YES, NO, prompt=long), row(Verdict(False, "not so " * 30), YES)],
        ["an arm with a name of many words", "b"],
        title="a title " * 30,
    )
    edges = np.asarray(picture).copy()
    edges[40:-40, 40:-40] = 255
    assert (edges == 255).all()
    short = gallery([row(YES, NO), row(NO, YES)], ["a", "b"])
    assert picture.width == short.width and picture.height > short.height


def test_the_heading_counts_and_the_rows_add_up():
    one, two = gallery([row(YES)], ["a"]), gallery([row(YES)] * 2, ["a"])
    three = gallery([row(YES)] * 3, ["a"])
    assert three.height - two.height == two.height - one.height > 256
    heading = np.asarray(one)[:105]
    assert (heading != np.asarray(gallery([row(NO)], ["a"]))[:105]).any()


@pytest.mark.parametrize(
    ("rows", "arms", "message"),
    [
        ([], ["base"], "at least one row"),
        ([row(YES)], [], "at least one row and one arm"),
        ([row(YES), row(YES, NO)], ["base"], "row 1 has 2 images and 2 verdicts for 1 arms"),
        ([GalleryRow("x", [TEAL], [])], ["base"], "row 0 has 1 images and 0 verdicts for 1 arms"),
    ],
)
def test_bad_input_is_refused(rows, arms, message):
    with pytest.raises(ValueError, match=message):
        gallery(rows, arms)
