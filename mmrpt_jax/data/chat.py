"""From messages with images to the token ids of a prompt, by a checkpoint's chat template."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from mmrpt_jax.data.checkpoint_tokenizer import CheckpointTokenizer
from mmrpt_jax.data.preprocessing.image_text import ImageText, expand_images
from mmrpt_jax.data.preprocessing.preprocessor import Layout
from mmrpt_jax.data.tokenizer import IMAGE

Message = Mapping[str, Any]


def user_message(prompt: str) -> Message:
    """One user's turn from a prompt of ours: every `IMAGE` in it becomes an image, what stands between them text.

    ``"<image> describe the image :"`` is an image and the text "describe the image :".
    """
    parts: list[Mapping[str, str]] = []
    for place, text in enumerate(prompt.split(IMAGE)):
        parts += [{"type": "image"}] if place else []
        parts += [{"type": "text", "text": text.strip()}] if text.strip() else []
    return {"role": "user", "content": parts}


def encode_chat(
    tokenizer: CheckpointTokenizer,
    messages: Sequence[Message],
    *,
    image_text: ImageText,
    layouts: Sequence[Layout],
    sample: Hashable,
    answered: bool = True,
) -> list[int]:
    """Token ids of a prompt up to where the answer begins, each image written out.

    Args:
        tokenizer: of the checkpoint; its template writes the messages.
        messages: turns whose content is a list of images and texts; user text has been escaped.
        image_text: how the checkpoint writes an image.
        layouts: how each image appears, in the order of the messages.
        sample: names the prompt in errors.
        answered: False for a prompt that no text follows.

    Raises:
        ValueError: placeholders and images differ in number, or image tokens and visual tokens do.
    """
    text = tokenizer.chat_text(messages, answered=answered)
    text = expand_images(text, image_text, layouts, sample=sample)
    ids = list(tokenizer.encode(text).ids)
    check_image_tokens(ids, tokenizer.image_id, layouts, sample=sample)
    return ids


def check_image_tokens(
    ids: Sequence[int], image_id: int, layouts: Sequence[Layout], *, sample: Hashable
) -> None:
    """Every visual token must have its place.

    Raises:
        ValueError: names the sample and both counts.
    """
    places, features = ids.count(image_id), sum(sum(layout.tokens) for layout in layouts)
    if places != features:
        raise ValueError(
            f"sample {sample!r} has {places} image tokens where its images give {features}; "
            "escape user text (`escape_placeholders`) and do not cut prompts"
        )
