"""One picture of what was asked for and what was drawn: a row per prompt, a panel per arm, a verdict under each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from mmrpt_jax.reporting.lettering import INK, QUIET, draw_lines, font, line_height, wrap
from mmrpt_jax.scenes import Verdict

PANEL, WORDS, MARGIN, GUTTER, AIR, GAP = 256, 320, 44, 32, 24, 12
TITLE_SIZE, PROMPT_SIZE, LABEL_SIZE, MARK = 36, 28, 20, 24
RIGHT, WRONG, RULE = (0, 128, 96), (196, 62, 82), (226, 224, 230)


class GalleryRow(NamedTuple):
    """One prompt with what every arm drew of it.

    Attributes:
        prompt: what was asked for.
        images: sRGB, one per arm.
        verdicts: one per arm, of its image.
    """

    prompt: str
    images: Sequence[UInt8[np.ndarray, "h w 3"]]
    verdicts: Sequence[Verdict]


def gallery(rows: Sequence[GalleryRow], arms: Sequence[str], *, title: str = "") -> Image.Image:
    """Draws prompts, images and verdicts: a check or a cross, and the verdict's reason.

    Images keep their pixels: they are enlarged without smoothing. Headings say how many of the rows are as asked.

    Args:
        rows: from top to bottom, at least one.
        arms: the columns' headings, from left to right, at least one.
        title: stands above the columns.

    Returns:
        An RGB picture, 700 to 1,300 pixels wide with one to three arms.

    Raises:
        ValueError: there is nothing to show, or a row has not one image and one verdict per arm.
    """
    _check(rows, arms)
    lefts = [MARGIN + WORDS + GUTTER + i * (PANEL + GUTTER) for i in range(len(arms))]
    width = lefts[-1] + PANEL + MARGIN
    title_lines = wrap(title, width=width - 2 * MARGIN, size=TITLE_SIZE) if title else []
    headings_top = MARGIN + len(title_lines) * line_height(TITLE_SIZE) + (AIR if title else 0)
    headings = [wrap(arm, width=PANEL, size=PROMPT_SIZE) for arm in arms]
    counts_top = headings_top + max(map(len, headings)) * line_height(PROMPT_SIZE)
    rows_top = counts_top + line_height(LABEL_SIZE) + GAP
    heights = [_row_height(row) for row in rows]
    height = rows_top + sum(heights) + 2 * AIR * (len(rows) - 1) + MARGIN

    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    draw_lines(draw, MARGIN, MARGIN, title_lines, size=TITLE_SIZE)
    for place, (left, heading) in enumerate(zip(lefts, headings, strict=True)):
        draw_lines(
            draw, left, counts_top - len(heading) * line_height(PROMPT_SIZE), heading, size=PROMPT_SIZE
        )
        passed = sum(row.verdicts[place].correct for row in rows)
        draw.text((left, counts_top), f"{passed} of {len(rows)} as asked", QUIET, font(LABEL_SIZE))
    top = rows_top
    for row, row_height in zip(rows, heights, strict=True):
        if top > rows_top:
            draw.line([(MARGIN, top - AIR), (width - MARGIN, top - AIR)], RULE, width=2)
        _draw_row(canvas, row, lefts, top)
        top += row_height + 2 * AIR
    return canvas


def mark(correct: bool, size: int = MARK) -> Image.Image:
    """A white check on a green disc, or a white cross on a red one; RGBA, smooth at the edges."""
    large = 8 * size
    picture = Image.new("RGBA", (large, large), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((0, 0, large - 1, large - 1), fill=RIGHT if correct else WRONG)
    check = [[(0.27, 0.52), (0.44, 0.69), (0.74, 0.34)]]
    cross = [[(0.32, 0.32), (0.68, 0.68)], [(0.32, 0.68), (0.68, 0.32)]]
    for stroke in check if correct else cross:
        points = [(round(x * large), round(y * large)) for x, y in stroke]
        draw.line(points, "white", width=large // 9, joint="curve")
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def enlarge(image: UInt8[np.ndarray, "h w 3"], width: int) -> Image.Image:
    """The image at another width, with sharp pixels."""
    height = round(width * image.shape[0] / image.shape[1])
    return Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)


def _draw_row(canvas: Image.Image, row: GalleryRow, lefts: Sequence[int], top: int) -> None:
    """Words in the middle of the panels' height, panels, verdicts."""
    draw = ImageDraw.Draw(canvas)
    words, panels = _words(row), [enlarge(image, PANEL) for image in row.images]
    tallest = max(panel.height for panel in panels)
    spare = tallest - len(words) * line_height(PROMPT_SIZE)
    draw_lines(draw, MARGIN, top + max(spare // 2, 0), words, size=PROMPT_SIZE)
    for left, panel, verdict in zip(lefts, panels, row.verdicts, strict=True):
        canvas.paste(panel, (left, top))
        draw.rectangle((left - 1, top - 1, left + panel.width, top + panel.height), outline=RULE)
        sign, verdict_top = mark(verdict.correct), top + tallest + GAP
        canvas.paste(sign, (left, verdict_top), sign)
        fill = INK if verdict.correct else WRONG
        draw_lines(draw, left + MARK + GAP - 2, verdict_top, _reason(verdict), size=LABEL_SIZE, fill=fill)


def _row_height(row: GalleryRow) -> int:
    tallest = max(round(PANEL * image.shape[0] / image.shape[1]) for image in row.images)
    reasons = max(len(_reason(verdict)) for verdict in row.verdicts)
    below = GAP + max(reasons * line_height(LABEL_SIZE), MARK)
    return max(tallest + below, len(_words(row)) * line_height(PROMPT_SIZE))


def _words(row: GalleryRow) -> list[str]:
    # Captions have a space before the full stop, for the tokenizer's sake.
    return wrap(row.prompt.removesuffix(" ."), width=WORDS, size=PROMPT_SIZE)


def _reason(verdict: Verdict) -> list[str]:
    return wrap(verdict.reason, width=PANEL - MARK - GAP, size=LABEL_SIZE)


def _check(rows: Sequence[GalleryRow], arms: Sequence[str]) -> None:
    if not rows or not arms:
        raise ValueError("gallery: give at least one row and one arm")
    for number, row in enumerate(rows):
        if not len(row.images) == len(row.verdicts) == len(arms):
            raise ValueError(
                f"gallery: row {number} has {len(row.images)} images and {len(row.verdicts)} verdicts "
                f"for {len(arms)} arms"
            )
