"""Items of a source -> records, or rejects: what is done to each row, wherever it is done."""

import dataclasses
import json
from collections.abc import Iterator

from data_prep.adapters import Adapter, Draft
from data_prep.errors import Reject
from data_prep.sources.base import Images, Item
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import ImageError, decode_image
from mmrpt_jax.data.records import QuestionAnswer, Record


@dataclasses.dataclass(frozen=True)
class Checked:
    """A record whose images can be decoded and whose texts are clean.

    Attributes:
        record: the record.
        escaped: how many of its texts held the literal string of a special token.
    """

    record: Record
    escaped: int


def check_item(item: Item, adapter: Adapter, *, max_pixels: int) -> Iterator[Checked | Reject]:
    """Yields what becomes of an item: any number of records and rejects."""
    if isinstance(item.row, Reject):
        yield item.row
        return
    try:
        drafts = adapter(item.row)
    except Reject as reject:
        yield reject
        return
    for draft in drafts:
        try:
            yield check_draft(draft, item.images, max_pixels=max_pixels)
        except Reject as reject:
            yield reject


def check_draft(draft: Draft, images: Images, *, max_pixels: int) -> Checked:
    """Checks and escapes the texts, reads and decodes the images; raises Reject."""
    if not draft.captions and not draft.qa:
        raise Reject("no caption or question", f"nothing is said about {draft.id!r}")
    captions = [_clean(caption, "caption") for caption in draft.captions]
    questions = [_clean(question, "question") for question, _ in draft.qa]
    answers = [_clean(answer, "answer") for _, answer in draft.qa]
    texts = [*captions, *questions, *answers]
    pairs = zip(map(escape_placeholders, questions), map(escape_placeholders, answers), strict=True)
    record = Record(
        id=_clean(draft.id, "id"),
        images=[_read(name, images, max_pixels) for name in draft.images],
        captions=[escape_placeholders(caption) for caption in captions],
        qa=[QuestionAnswer(question=question, answer=answer) for question, answer in pairs],
        group=_clean(draft.group, "group"),
        extra=json.dumps(draft.extra),
    )
    return Checked(record, sum(escape_placeholders(text) != text for text in texts))


def _read(name: str, images: Images, max_pixels: int) -> bytes:
    data = images.read(name)
    try:
        decode_image(data, max_pixels=max_pixels)
    except ImageError as error:
        reason = "decompression bomb" if error.kind == "too large" else "unreadable image"
        raise Reject(reason, f"{name!r}: {error}") from error
    return data


def _clean(text: object, what: str) -> str:
    """Returns `text` without surrounding white space; raises Reject if it is no text, or empty."""
    if not isinstance(text, str):
        raise Reject("wrong type", f"the {what} is {text!r}, expected text")
    if not text.strip():
        raise Reject(f"empty {what}", f"the {what} has no characters but white space")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Reject("invalid UTF-8", f"the {what} holds half a surrogate pair: {error}") from error
    return text.strip()
