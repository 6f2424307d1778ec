"""Rows of a JSON-lines file -> records, or rejects."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from data_prep.adapters import Adapter, Draft
from data_prep.errors import Reject
from data_prep.rejects import RejectLog
from data_prep.tars import TarImages
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import ImageError, decode_image
from mmrpt_jax.data.records import QuestionAnswer, Record

_PROGRESS_ROWS = 10_000


class RecordMaker:
    """Turns drafts into records: reads and checks the image, checks and escapes the texts, refuses known ids.

    Attributes:
        escaped: number of texts that held the literal string of a special token.
    """

    def __init__(self, max_pixels: int):
        self.escaped = 0
        self._max_pixels = max_pixels
        self._seen: set[bytes] = set()

    def __call__(self, draft: Draft, images: TarImages) -> Record:
        """Returns the record; raises Reject."""
        if not draft.captions and not draft.qa:
            raise Reject("no caption or question", f"nothing is said about {draft.image!r}")
        record = Record(
            id=_clean(draft.id, "id"),
            image=b"",
            captions=[self._text(caption, "caption") for caption in draft.captions],
            qa=[
                QuestionAnswer(question=self._text(question, "question"), answer=self._text(answer, "answer"))
                for question, answer in draft.qa
            ],
            group=_clean(draft.group, "group"),
            extra=json.dumps(draft.extra),
        )
        # A digest per id instead of the id: long paths of millions of rows would fill the memory.
        digest = hashlib.blake2b(record["id"].encode(), digest_size=12).digest()
        if digest in self._seen:
            raise Reject("duplicate id", f"{record['id']!r} was used by an earlier row")
        record["image"] = self._image(draft.image, images)
        self._seen.add(digest)
        return record

    def _image(self, name: str, images: TarImages) -> bytes:
        data = images.read(name)
        try:
            decode_image(data, max_pixels=self._max_pixels)
        except ImageError as error:
            reason = "decompression bomb" if error.kind == "too large" else "unreadable image"
            raise Reject(reason, f"{name!r}: {error}") from error
        return data

    def _text(self, text: object, what: str) -> str:
        text = _clean(text, what)
        escaped = escape_placeholders(text)
        self.escaped += escaped != text
        return escaped


def read_records(
    jsonl: Path, tar: Path, adapter: Adapter, make: RecordMaker, rejects: RejectLog
) -> Iterator[Record]:
    """Yields the records of one file, in order, and lists in `rejects` what cannot be used.

    Raises:
        UsageError: `tar` is no archive.
    """
    with TarImages(tar, lambda reject: rejects.add(reject, tar, None)) as images, jsonl.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number % _PROGRESS_ROWS == 0:
                print(
                    f"{jsonl.name}: {number} rows, {rejects.counts.total()} rejects so far", file=sys.stderr
                )
            if not line.strip():
                continue
            try:
                drafts = adapter(_parse(line))
            except Reject as reject:
                rejects.add(reject, jsonl, number)
                continue
            for draft in drafts:
                try:
                    yield make(draft, images)
                except Reject as reject:
                    rejects.add(reject, jsonl, number)


def _parse(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Reject("invalid UTF-8", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Reject("invalid JSON", str(error)) from error
    if not isinstance(row, dict):
        raise Reject("invalid JSON", f"the line is a {type(row).__name__}, expected an object")
    return row


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
