"""One picture of what was scored and masked: image patches and caption words coloured by dependency."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from mmrpt_jax.reporting.colours import dependency_colours, lightness, normalise, rescale
from mmrpt_jax.reporting.lettering import INK, QUIET, font

PANEL, MARGIN, GAP, LINE_GAP = 560, 44, 12, 18
UNSCORED, OUTLINE = (238, 238, 240), (0, 110, 140)
TEXT_SIZE, LABEL_SIZE = 32, 22
WORD_PADDING = (10, 7)


class Box(NamedTuple):
    """A rectangle in pixels, the right and lower edge included."""

    left: int
    top: int
    right: int
    bottom: int

    def grown(self, by: int) -> "Box":
        """The box with each edge moved out by `by` pixels."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)


def dependency_overlay(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    patch_heats: Sequence[Float[np.ndarray, "rows columns"]],
    words: Sequence[str],
    word_scores: Float[np.ndarray, " words"],
    masked_word_indices: Collection[int],
    *,
    patch_label: str = "attention received per patch",
    word_label: str = "visual dependency of each word",
) -> Image.Image:
    """Draws the images, the images under their patch heat maps, and the caption with every word on its colour.

    Both scales run from the smallest to the largest value shown, that of patches over all images; their ends are
    printed beside them. Masked words are outlined, neighbours together.

    Args:
        images: sRGB, one or more; they stand in a row.
        patch_heats: of each image a score per patch, in rows; the grid covers the image.
        words: the caption's words in order, as they are to be shown.
        word_scores: a score per word; NaN for a word that was not scored, drawn on grey.
        masked_word_indices: indices into `words` of the span or spans that were cut out.
        patch_label: what `patch_heats` are.
        word_label: what `word_scores` are.

    Returns:
        An RGB picture about 1,200 pixels wide.

    Raises:
        ValueError: lengths disagree, there is no image, an index lies outside the caption, or scores hold no finite
            number.
    """
    if not 0 < len(images) == len(patch_heats):
        raise ValueError(
            f"overlay: {len(images)} images but {len(patch_heats)} heat maps; give one per image, one at least"
        )
    if len(word_scores) != len(words):
        raise ValueError(
            f"overlay: {len(words)} words but {len(word_scores)} scores; give one score per word"
        )
    if not all(0 <= index < len(words) for index in masked_word_indices):
        raise ValueError(
            f"overlay: masked words {sorted(masked_word_indices)} lie outside 0..{len(words) - 1}"
        )
    _, *heat_range = normalise(np.concatenate([np.ravel(heat) for heat in patch_heats]))
    levels, *word_range = normalise(word_scores)

    originals = scale_to_row(images, PANEL)
    right = MARGIN + PANEL + MARGIN
    panels_top = MARGIN + LABEL_SIZE + GAP
    legend_top = panels_top + originals[0].height + GAP
    caption_top = legend_top + LABEL_SIZE + MARGIN
    boxes = layout_words(words, left=MARGIN, top=caption_top, width=2 * PANEL + MARGIN)
    footer_top = boxes[-1].bottom + MARGIN

    canvas = Image.new("RGB", (right + PANEL + MARGIN, footer_top + LABEL_SIZE + MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    offset = 0
    for original, heat in zip(originals, patch_heats, strict=True):
        canvas.paste(original, (MARGIN + offset, panels_top))
        canvas.paste(heat_panel(original, rescale(heat, *heat_range)), (right + offset, panels_top))
        offset += original.width + GAP
    for left, label in ((MARGIN, "image" if len(images) == 1 else "images"), (right, patch_label)):
        draw.text((left, MARGIN), label, QUIET, font(LABEL_SIZE))
    _draw_scale(draw, right, legend_top, *heat_range)
    _draw_words(draw, words, levels, boxes)
    for box in masked_outlines(boxes, masked_word_indices):
        draw.rounded_rectangle(box, radius=10, outline=OUTLINE, width=4)
    _draw_footer(draw, footer_top, word_label, word_range, bool(masked_word_indices))
    return canvas


def scale_to_row(images: Sequence[UInt8[np.ndarray, "h w 3"]], width: int) -> list[Image.Image]:
    """The images in one height, so that beside each other, with gaps between, they are about `width` pixels wide."""
    shapes = [image.shape[1] / image.shape[0] for image in images]
    height = (width - GAP * (len(images) - 1)) / sum(shapes)
    sizes = [(max(1, round(height * shape)), max(1, round(height))) for shape in shapes]
    return [
        Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        for image, size in zip(images, sizes, strict=True)
    ]


def heat_panel(image: Image.Image, levels: Float[np.ndarray, "gh gw"]) -> Image.Image:
    """Tints the image, in grey, with the colour of each patch; patches keep sharp edges, as scores have."""
    grey = np.asarray(image.convert("L"), np.float64)[..., None] / 255
    colours = Image.fromarray(dependency_colours(levels)).resize(image.size, Image.Resampling.NEAREST)
    # Black parts of the image still have to show their patch's colour, so shading stops at 0.7.
    return Image.fromarray((np.asarray(colours) * (0.7 + 0.3 * grey)).round().astype(np.uint8))


def layout_words(words: Sequence[str], *, left: int, top: int, width: int) -> list[Box]:
    """Boxes of words in lines of at most `width` pixels; a word wider than that has its own line."""
    letters = font(TEXT_SIZE)
    pad_x, pad_y = WORD_PADDING
    height = sum(letters.getmetrics()) + 2 * pad_y
    boxes, x, y = [], left, top
    for word in words:
        advance = round(letters.getlength(word)) + 2 * pad_x
        if x > left and x + advance > left + width:
            x, y = left, y + height + LINE_GAP
        boxes.append(Box(x, y, x + advance, y + height))
        x += advance + GAP
    return boxes


def masked_outlines(boxes: Sequence[Box], masked: Collection[int]) -> list[Box]:
    """One outline around each run of neighbouring masked words on the same line."""
    outlines: list[Box] = []
    previous = None
    for index in sorted(set(masked)):
        box = boxes[index].grown(4)
        if previous == index - 1 and outlines[-1].top == box.top:
            outlines[-1] = outlines[-1]._replace(right=box.right)
        else:
            outlines.append(box)
        previous = index
    return outlines


def _draw_words(
    draw: ImageDraw.ImageDraw, words: Sequence[str], levels: Float[np.ndarray, " words"], boxes: Sequence[Box]
) -> None:
    for word, level, box in zip(words, levels, boxes, strict=True):
        fill = UNSCORED if np.isnan(level) else tuple(dependency_colours(level).tolist())
        # At L* 53 dark ink and white have the same contrast.
        ink = INK if lightness(np.array(fill)) > 53 else (255, 255, 255)
        draw.rounded_rectangle(box, radius=7, fill=fill)
        draw.text((box.left + WORD_PADDING[0], box.top + WORD_PADDING[1]), word, ink, font(TEXT_SIZE))


def _draw_scale(draw: ImageDraw.ImageDraw, left: int, top: int, low: float, high: float) -> int:
    """Draws `low [colours] high` and returns its right edge."""
    letters = font(LABEL_SIZE)
    low_text, high_text = f"{low:.2g}", f"{high:.2g}"
    start = left + round(letters.getlength(low_text)) + GAP
    colours = dependency_colours(np.linspace(0.0, 1.0, 180))
    draw.text((left, top), low_text, QUIET, letters)
    for offset, colour in enumerate(colours.tolist()):
        draw.line([(start + offset, top + 5), (start + offset, top + LABEL_SIZE)], tuple(colour))
    end = start + len(colours) + GAP
    draw.text((end, top), high_text, QUIET, letters)
    return end + round(letters.getlength(high_text))


def _draw_footer(
    draw: ImageDraw.ImageDraw, top: int, label: str, word_range: Sequence[float], masked: bool
) -> None:
    letters = font(LABEL_SIZE)
    draw.text((MARGIN, top), label, QUIET, letters)
    right = _draw_scale(draw, MARGIN + round(letters.getlength(label)) + 2 * GAP, top, *word_range)
    if masked:
        sample = Box(right + MARGIN, top + 4, right + MARGIN + 40, top + LABEL_SIZE + 2)
        draw.rounded_rectangle(sample, radius=7, outline=OUTLINE, width=4)
        draw.text((sample.right + GAP, top), "cut out, to be reconstructed", QUIET, letters)
