"""The drawings of one step at a glance: a row per prompt, its group side by side, the advantage under each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from mmrpt_jax.reporting.gallery import AIR, GAP, MARGIN, RIGHT, RULE, WRONG, enlarge
from mmrpt_jax.reporting.lettering import QUIET, draw_lines, font, line_height, wrap

THUMBNAIL, PROMPT_SIZE, LABEL_SIZE = 128, 24, 18


def contact_sheet(
    prompts: Sequence[str],
    images: UInt8[np.ndarray, "B G h w 3"],
    advantages: Float[np.ndarray, "B G"],
    *,
    title: str = "",
) -> Image.Image:
    """Draws groups of images, each group below its prompt.

    An advantage above 0 is green, one below is red; where all are 0, nothing is learned.

    Args:
        prompts: B texts.
        images: sRGB.
        advantages: one per image; NaN where there is none.
        title: stands on top.

    Returns:
        An RGB picture, 128 pixels and a gap wide per image.

    Raises:
        ValueError: prompts, images and advantages do not agree in number, or there are none.
    """
    if images.shape[:2] != advantages.shape or len(prompts) != len(images) or not advantages.size:
        raise ValueError(
            f"contact sheet: {len(prompts)} prompts, images {images.shape} and advantages {advantages.shape} do not "
            f"make a row per prompt"
        )
    inner = images.shape[1] * (THUMBNAIL + GAP) - GAP
    texts = [wrap(text.removesuffix(" ."), width=inner, size=PROMPT_SIZE) for text in prompts]
    head = wrap(title, width=inner, size=LABEL_SIZE) if title else []
    top = MARGIN + len(head) * line_height(LABEL_SIZE) + (GAP if head else 0)
    below_text = GAP + _thumbnail_height(images) + line_height(LABEL_SIZE)
    height = top + sum(len(lines) * line_height(PROMPT_SIZE) + below_text for lines in texts)
    canvas = Image.new("RGB", (inner + 2 * MARGIN, height + AIR * (len(texts) - 1) + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    draw_lines(draw, MARGIN, MARGIN, head, size=LABEL_SIZE, fill=QUIET)
    for lines, group, earned in zip(texts, images, advantages, strict=True):
        row_top = draw_lines(draw, MARGIN, top, lines, size=PROMPT_SIZE)
        _draw_group(canvas, row_top + GAP // 2, group, earned)
        top = row_top + below_text + AIR
    return canvas


def _draw_group(
    canvas: Image.Image, top: int, group: UInt8[np.ndarray, "G h w 3"], earned: Float[np.ndarray, " G"]
) -> None:
    """Images side by side, and their advantages under their middles."""
    draw = ImageDraw.Draw(canvas)
    for place, (image, advantage) in enumerate(zip(group, earned, strict=True)):
        left, thumbnail = MARGIN + place * (THUMBNAIL + GAP), enlarge(image, THUMBNAIL)
        canvas.paste(thumbnail, (left, top))
        draw.rectangle((left - 1, top - 1, left + THUMBNAIL, top + thumbnail.height), outline=RULE)
        text, colour = _advantage(float(advantage))
        middle = left + THUMBNAIL // 2
        draw.text((middle, top + thumbnail.height + 4), text, colour, font(LABEL_SIZE), anchor="ma")


def _advantage(value: float) -> tuple[str, tuple[int, int, int]]:
    """How an advantage is written, and its colour; what rounds to 0 is written as 0."""
    if not np.isfinite(value):
        return "none", QUIET
    text = f"{value:+.2f}"
    if text[1:] == "0.00":
        return "0", QUIET
    return text, RIGHT if value > 0 else WRONG


def _thumbnail_height(images: UInt8[np.ndarray, "B G h w 3"]) -> int:
    return round(THUMBNAIL * images.shape[2] / images.shape[3])
