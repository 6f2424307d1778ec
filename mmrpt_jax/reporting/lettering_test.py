from itertools import pairwise

from PIL import Image, ImageDraw

from mmrpt_jax.reporting.lettering import draw_lines, font, line_height, wrap


def test_lines_hold_all_words_within_the_width():
    text = "a small picture of four purple triangles and an orange cross ."
    lines = wrap(text, width=200, size=20)
    assert " ".join(lines) == text
    assert len(lines) > 2
    assert all(font(20).getlength(line) <= 200 for line in lines)
    # Greedy: no first word of a line had room on the line before.
    for before, after in pairwise(lines):
        assert font(20).getlength(f"{before} {after.split()[0]}") > 200


def test_short_texts_stay_whole():
    assert wrap("as asked", width=200, size=20) == ["as asked"]
    assert wrap("", width=200, size=20) == [""]


def test_words_wider_than_a_line_are_cut():
    lines = wrap("a " + "w" * 40 + " b", width=100, size=20)
    assert all(0 < font(20).getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == "a" + "w" * 40 + "b"
    assert wrap("ww", width=1, size=20) == ["w", "w"]


def test_lines_are_drawn_below_each_other():
    canvas = Image.new("RGB", (100, 100), "white")
    after = draw_lines(ImageDraw.Draw(canvas), 10, 20, ["I", "I"], size=20, fill=(255, 0, 0))
    assert after == 20 + 2 * line_height(20) == 72
    inked = [y for y in range(100) if any(canvas.getpixel((x, y)) != (255, 255, 255) for x in range(100))]
    assert 20 <= inked[0] < 46 <= inked[-1] < 72
