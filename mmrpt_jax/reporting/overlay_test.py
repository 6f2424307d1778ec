from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mmrpt_jax.reporting.colours import dependency_colours
from mmrpt_jax.reporting.overlay import (
    OUTLINE,
    UNSCORED,
    Box,
    dependency_overlay,
    heat_panel,
    layout_words,
    masked_outlines,
)

WORDS = ["A", "red", "circle", "here."]
WHITE_IMAGE = np.full((8, 8, 3), 255, np.uint8)
HEAT = np.array([[0.0, 1.0], [0.0, 0.0]])
LOWEST, HIGHEST = (251, 246, 235), (93, 34, 101)


def colours_of(picture):
    """Every colour of a picture with the number of its pixels."""
    return {colour: count for count, colour in picture.getcolors(picture.width * picture.height)}


def overlay(**changes):
    given = {
        "images": [WHITE_IMAGE],
        "patch_heats": [HEAT],
        "words": WORDS,
        "word_scores": np.array([0.1, 0.9, 0.5, 0.2]),
    }
    return dependency_overlay(**given | {"masked_word_indices": [1, 2]} | changes)


def test_heat_panel_places_each_patch():
    panel = heat_panel(Image.fromarray(WHITE_IMAGE).resize((40, 20)), HEAT)
    assert panel.size == (40, 20)
    assert panel.getpixel((30, 4)) == HIGHEST
    assert [panel.getpixel(xy) for xy in ((10, 4), (10, 15), (30, 15))] == [LOWEST] * 3


def test_heat_panel_shades_black_to_seven_tenths():
    panel = heat_panel(Image.new("RGB", (4, 4)), np.array([[0.0, 1.0]]))
    assert panel.getpixel((0, 0)) == tuple(round(0.7 * c) for c in LOWEST)


def test_words_break_into_lines_within_the_width():
    words = ["wide"] * 12 + ["exceedinglylongwordthatfitsnoline"]
    boxes = layout_words(words, left=10, top=5, width=300)
    assert boxes[0][:2] == (10, 5)
    assert all(box.right <= 310 for box in boxes[:-1])
    assert boxes[-1].left == 10
    tops = [box.top for box in boxes]
    assert tops == sorted(tops)
    for before, after in pairwise(boxes):
        assert after.left > before.right if after.top == before.top else after.top > before.bottom


def test_outlines_join_neighbours_on_a_line():
    boxes = [
        Box(0, 0, 10, 10),
        Box(20, 0, 30, 10),
        Box(40, 0, 50, 10),
        Box(0, 30, 10, 40),
        Box(20, 30, 30, 40),
    ]
    assert masked_outlines(boxes, {3, 1, 2}) == [Box(16, -4, 54, 14), Box(-4, 26, 14, 44)]
    assert masked_outlines(boxes, [0, 2]) == [Box(-4, -4, 14, 14), Box(36, -4, 54, 14)]
    assert masked_outlines(boxes, []) == []


def test_overlay_shows_panels_words_and_outline():
    picture = overlay()
    assert picture.mode == "RGB"
    assert picture.getpixel((picture.width // 4, 200)) == (255, 255, 255)
    assert picture.getpixel((picture.width * 4 // 5, 200)) == HIGHEST
    colours, unmasked = colours_of(picture), colours_of(overlay(masked_word_indices=[]))
    assert OUTLINE in colours
    assert OUTLINE not in unmasked


def test_several_images_stand_beside_each_other_on_one_scale():
    wide = np.full((8, 16, 3), 255, np.uint8)
    picture = overlay(
        images=[WHITE_IMAGE, wide], patch_heats=[np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])]
    )
    assert picture.width == overlay().width
    # A panel of 560 pixels holds a square of 183, a gap of 12, and twice the square; the second panel begins at 648.
    row, left = 150, 648
    assert [picture.getpixel((44 + x, row)) for x in (90, 188, 400)] == [(255, 255, 255)] * 3
    halfway = tuple(dependency_colours(0.5).tolist())
    assert [picture.getpixel((left + x, row)) for x in (10, 170)] == [halfway] * 2
    assert [picture.getpixel((left + x, row)) for x in (250, 500)] == [LOWEST, HIGHEST]


def test_word_background_follows_its_score():
    flat = np.zeros((2, 2))
    one_high = colours_of(overlay(patch_heats=[flat]))[HIGHEST]
    three_high = colours_of(overlay(patch_heats=[flat], word_scores=np.array([0.1, 0.9, 0.9, 0.9])))[HIGHEST]
    assert three_high > 2 * one_high
    assert UNSCORED not in colours_of(overlay())
    assert UNSCORED in colours_of(overlay(word_scores=np.array([np.nan, 0.9, 0.5, 0.2])))


def test_long_captions_make_a_taller_picture_and_wide_images_a_shorter_one():
    longer = overlay(words=WORDS * 20, word_scores=np.arange(80.0))
    assert longer.width == overlay().width
    assert longer.height > overlay().height > overlay(images=[WHITE_IMAGE[:4]]).height


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"word_scores": np.zeros(3)}, "4 words but 3 scores"),
        ({"masked_word_indices": [4]}, r"\[4\] lie outside 0\.\.3"),
        ({"patch_heats": [np.full((2, 2), np.nan)]}, "at least one finite"),
        ({"patch_heats": []}, "1 images but 0 heat maps"),
        ({"images": [], "patch_heats": []}, "0 images but 0 heat maps"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        overlay(**changes)
