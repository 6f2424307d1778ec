"""What stands for an image in a prompt's text, until the vision tower's tokens take its place."""

import dataclasses
from collections.abc import Hashable, Sequence
from itertools import chain, zip_longest
from typing import Protocol

from mmrpt_jax.data.preprocessing.preprocessor import Layout


class ImageText(Protocol):
    """How a checkpoint writes an image.

    Attributes:
        placeholder: what its chat template writes for an image.
        token: what stands once for every visual token.
    """

    placeholder: str
    token: str

    def write(self, layout: Layout) -> str:
        """What replaces the placeholder of an image of this layout."""


@dataclasses.dataclass(frozen=True)
class FramedRun:
    """`before`, the token once per visual token, `after` (Qwen-VL, Gemma 3, BAGEL).

    Attributes:
        placeholder: what the chat template writes for an image.
        token: what stands once for every visual token.
        before: what stands before the run of a tile; the chat template may have written it already.
        after: what stands behind it.
        with_crops: for an image with crops: the sentence around the runs of the `{whole}` and its `{crops}`.
    """

    placeholder: str
    token: str
    before: str = ""
    after: str = ""
    with_crops: str = ""

    def write(self, layout: Layout) -> str:
        """One run; with crops, the sentence about them."""
        whole, *crops = (f"{self.before}{self.token * count}{self.after}" for count in layout.tokens)
        return self.with_crops.format(whole=whole, crops=" ".join(crops)) if crops else whole


@dataclasses.dataclass(frozen=True)
class NumberedTiles:
    """Every tile behind a marker that says where it lies, the whole image last (Idefics3, SmolVLM)."""

    placeholder: str = "<image>"
    token: str = "<image>"
    around: str = "<fake_token_around_image>"
    whole: str = "<global-img>"

    def write(self, layout: Layout) -> str:
        """One line per row of crops, an empty line, the whole image."""
        runs = [self.token * count for count in layout.tokens]
        lines = [
            "".join(
                f"{self.around}<row_{row + 1}_col_{column + 1}>{runs[row * layout.columns + column]}"
                for column in range(layout.columns)
            )
            for row in range(layout.rows)
        ]
        crops = "\n".join([*lines, "\n"]) if lines else ""
        return f"{crops}{self.around}{self.whole}{runs[-1]}{self.around}"


def expand_images(text: str, image_text: ImageText, layouts: Sequence[Layout], *, sample: Hashable) -> str:
    """Writes the images of a prompt in the place of its placeholders.

    Args:
        text: the prompt, one placeholder per image; what users wrote has been escaped.
        image_text: how the checkpoint writes an image.
        layouts: how each image appears, in the order of the placeholders.
        sample: names the prompt in errors.

    Raises:
        ValueError: there are not as many placeholders as images.
    """
    pieces = text.split(image_text.placeholder)
    if len(pieces) - 1 != len(layouts):
        raise ValueError(
            f"sample {sample!r} has {len(pieces) - 1} image placeholders for {len(layouts)} images; "
            "give each image its placeholder and escape user text (`escape_placeholders`)"
        )
    images = map(image_text.write, layouts)
    return "".join(chain.from_iterable(zip_longest(pieces, images, fillvalue="")))
