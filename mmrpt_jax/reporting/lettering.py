"""How pictures for people are lettered: one font, two inks, and lines that break where they must."""

from collections.abc import Sequence

from PIL import ImageDraw, ImageFont

INK, QUIET = (38, 34, 44), (122, 116, 128)


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow, `size` pixels high; it has Western letters, and no dash but the hyphen."""
    return ImageFont.load_default(size)


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(1.3 * size)


def wrap(text: str, *, width: int, size: int) -> list[str]:
    """Breaks a text between words into lines of at most `width` pixels, and inside a word that is wider than that."""
    letters = font(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += _cut(word, width, letters)
    return [line for line in lines if line] or [""]


def draw_lines(
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    lines: Sequence[str],
    *,
    size: int,
    fill: tuple[int, int, int] = INK,
) -> int:
    """Draws lines below each other and returns where the next one would stand."""
    for line in lines:
        draw.text((left, top), line, fill, font(size))
        top += line_height(size)
    return top


def _cut(word: str, width: int, letters: ImageFont.FreeTypeFont) -> list[str]:
    """A word in pieces of at most `width` pixels, of one letter at least."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and letters.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
