"""From text to padded prompt and branch arrays. Masks are made here, where the tokens are made."""

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from mmrpt_jax.data.tokenizer import ANSWER, END_ANSWER, END_THINK, EOS, IMAGE, THINK, Tokenizer
from mmrpt_jax.models.vlm import BranchTokens, PromptTokens

# Where a wording takes the text that a prompt is about.
TEXT = "{text}"


@dataclasses.dataclass(frozen=True)
class Wording:
    """How prompts are worded: `IMAGE` stands for the images, `{text}` for what the prompt is about.

    A wording has one `IMAGE`, a prompt as many as it has images: they follow each other there, and where there are none
    nothing is left of it.

    Attributes:
        caption: behind which captions are learned and scored.
        fill: asks for the hidden span of a masked caption. The default shows it as a caption: what was learned from
            captions is at hand from the first step.
        question: asks a question; only supervised fine-tuning teaches it.
        drawing: behind which an image is drawn; without text, what guidance steers away from.

    Raises:
        ValueError: a wording lacks its text, or has not one image where it needs one.
    """

    caption: str = f"{IMAGE} describe the image :"
    fill: str = f"{IMAGE} describe the image : {TEXT}"
    question: str = f"{IMAGE} answer the question : {TEXT}"
    drawing: str = f"draw the image : {TEXT}"

    def __post_init__(self):
        for name, images, texts in (("caption", 1, 0), ("fill", 1, 1), ("question", 1, 1), ("drawing", 0, 1)):
            wording = getattr(self, name)
            if (wording.count(IMAGE), wording.count(TEXT)) != (images, texts):
                raise ValueError(
                    f"the wording of {name!r} needs {images} {IMAGE} and {texts} {TEXT}, not {wording!r}"
                )

    def caption_prompt(self, images: int = 1) -> str:
        """The prompt behind which captions of so many images are learned and scored."""
        return _with_images(self.caption, images)

    def fill_prompt(self, masked_caption: str, images: int = 1) -> str:
        """The prompt that asks for the hidden span of a masked caption of so many images."""
        return _with_images(self.fill, images).replace(TEXT, masked_caption)

    def question_prompt(self, question: str, images: int = 1) -> str:
        """The prompt that asks a question about so many images."""
        return _with_images(self.question, images).replace(TEXT, question)

    def drawing_prompt(self, text: str) -> str:
        """The prompt behind which an image is drawn."""
        return self.drawing.replace(TEXT, text)


class TooLongError(ValueError):
    """A prompt or branch does not fit the largest length; nothing is ever cut off an image or an answer."""


def answer_text(reply: str) -> str:
    """A bare reply and the end token."""
    return f"{reply}{EOS}"


def completion(think: str, answer: str) -> str:
    """`<think>…</think><answer>…</answer>` and the end token."""
    return f"{THINK}{think}{END_THINK}{ANSWER}{answer}{END_ANSWER}{EOS}"


def bucket(length: int, buckets: Sequence[int], what: str, unit: str = "tokens") -> int:
    """The smallest bucket that holds `length`.

    Raises:
        TooLongError: `length` exceeds the largest bucket.
    """
    place = bisect.bisect_left(sorted(buckets), length)
    if place == len(buckets):
        raise TooLongError(f"{what} takes {length} {unit}, more than the largest length {max(buckets)}")
    return sorted(buckets)[place]


def encode_prompt_ids(tokenizer: Tokenizer, text: str, *, image_tokens: int) -> list[int]:
    """Token ids of a prompt, each image placeholder repeated once per visual token."""
    ids: list[int] = []
    for token in tokenizer.encode(text).ids:
        ids += [token] * (image_tokens if token == tokenizer.image_id else 1)
    return ids


def encode_prompts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    image_tokens: int,
    images: int | Sequence[int] = 1,
    lengths: Sequence[int],
) -> PromptTokens:
    """Encodes prompts to one of `lengths`, padded on the right.

    Args:
        tokenizer: of the model.
        texts: the prompts.
        image_tokens: visual tokens of an image.
        images: how many every prompt has, or each.
        lengths: buckets.

    Raises:
        TooLongError: a prompt exceeds the largest length.
        ValueError: a prompt has not as many placeholders as images, or neither images nor words.
    """
    rows = [encode_prompt_ids(tokenizer, text, image_tokens=image_tokens) for text in texts]
    expected = np.broadcast_to(images, len(rows)) * image_tokens
    for place, (row, text, count) in enumerate(zip(rows, texts, expected, strict=True)):
        if not row:
            raise ValueError(f"prompt {place} has no token: where there is no image, its wording needs words")
        if row.count(tokenizer.image_id) != count:
            raise ValueError(
                f"prompt {place} has {row.count(tokenizer.image_id)} image tokens where its images give "
                f"{count}: {text!r}"
            )
    return pad_prompts(tokenizer, rows, lengths=lengths)


def pad_prompts(
    tokenizer: Tokenizer, rows: Sequence[Sequence[int]], *, lengths: Sequence[int]
) -> PromptTokens:
    """Pads prompts, already token ids, on the right to one of `lengths`.

    Raises:
        TooLongError: a prompt exceeds the largest length.
    """
    length = bucket(max(map(len, rows)), lengths, "a prompt")
    ids, valid = _pad(rows, length, tokenizer.pad_id)
    return PromptTokens(ids, valid, (ids == tokenizer.image_id) & valid)


def encode_branches(
    tokenizer: Tokenizer, groups: Sequence[Sequence[str]], *, lengths: Sequence[int]
) -> BranchTokens:
    """Encodes groups of equal size to [B, G, R]; the texts carry their own end token.

    Raises:
        TooLongError: a branch exceeds the largest length.
        ValueError: the groups differ in size.
    """
    size = len(groups[0])
    if {len(group) for group in groups} != {size}:
        raise ValueError(f"groups must be of one size, got {sorted({len(group) for group in groups})}")
    rows = [list(tokenizer.encode(text).ids) for group in groups for text in group]
    length = bucket(max(map(len, rows)), lengths, "a branch")
    ids, valid = _pad(rows, length, tokenizer.pad_id)
    return BranchTokens(ids.reshape(-1, size, length), valid.reshape(-1, size, length))


def _with_images(wording: str, images: int) -> str:
    """A placeholder per image in the place of the one; without any, one space or the wording's end is in its place."""
    if images:
        return wording.replace(IMAGE, IMAGE * images)
    return " ".join(part.strip() for part in wording.split(IMAGE)).strip()


def _pad(rows: Sequence[Sequence[int]], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((len(rows), length), pad_id, np.int32)
    valid = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        valid[i, : len(row)] = True
    return ids, valid
