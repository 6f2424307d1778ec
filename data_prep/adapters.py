"""What the fields of a source row mean: one adapter per known dataset, and one steered by field names.

An adapter turns a row into drafts, one per record, and raises Reject for a row that cannot be used.
"""

import dataclasses
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from data_prep.errors import Reject

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Draft:
    """A record before its images are read and its texts are checked.

    Attributes:
        id: unique within the converted set.
        images: the images' names in the archive, in reading order.
        captions: texts that are true of the images.
        qa: (question, answer) pairs.
        group: rows of one group stay in one split.
        extra: fields to keep as JSON.
    """

    id: str
    images: Sequence[str]
    captions: Sequence[str]
    qa: Sequence[tuple[str, str]]
    group: str
    extra: Mapping[str, Any]


Adapter = Callable[[Row], Iterable[Draft]]


@dataclasses.dataclass(frozen=True)
class FieldAdapter:
    """Reads images, captions, questions and answers from named fields, each a text or a list; the rest is extra."""

    image_field: str = "image"
    caption_field: str | None = None
    question_field: str | None = None
    answer_field: str | None = None
    id_field: str | None = None
    group_field: str | None = None

    def __call__(self, row: Row) -> list[Draft]:
        """Returns the row's one draft; the id defaults to the images' names, the group to the id."""
        images = names(row, self.image_field)
        questions = texts(row, self.question_field)
        answers = texts(row, self.answer_field)
        if len(questions) != len(answers):
            raise Reject("wrong type", f"{len(questions)} questions but {len(answers)} answers")
        record_id = text(row, self.id_field) if self.id_field else " ".join(images)
        if not record_id:
            raise Reject("empty id", "a row without an image has an id only where --id_field names one")
        return [
            Draft(
                id=record_id,
                images=images,
                captions=texts(row, self.caption_field),
                qa=list(zip(questions, answers, strict=True)),
                group=text(row, self.group_field) if self.group_field else record_id,
                extra=without(row, *dataclasses.asdict(self).values()),
            )
        ]


def coco_mini_cc(row: Row) -> list[Draft]:
    """Five captions an image; licence and addresses are extra."""
    image = text(row, "image")
    record_id = PurePosixPath(image).stem
    return [
        Draft(record_id, [image], texts(row, "captions"), (), record_id, without(row, "image", "captions"))
    ]


def easy_vqa(row: Row) -> list[Draft]:
    """Questions only."""
    image = text(row, "image")
    pairs = field(row, "qa")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise Reject("wrong type", "'qa' is not a list of [question, answer]")
    return [Draft(image, [image], (), [(q, a) for q, a in pairs], image, without(row, "image", "qa"))]


def fxemoji(row: Row) -> list[Draft]:
    """The name is the caption; keywords and Unicode's groups are extra. Icons of one name stay together."""
    image, name = text(row, "image"), text(row, "name")
    return [Draft(PurePosixPath(image).stem, [image], [name], (), name, without(row, "image", "name"))]


def nlvr_v1(row: Row) -> list[Draft]:
    """A sentence is a caption where it is true of the image, and a question where its truth was verified.

    True means: labelled "true", or without a label but written for the first two scenes of its presentation
    (position_label "true"). Training rows have one image and stay together by directory, development rows
    have six orders of the same boxes and stay together by identifier. A row without a sentence, or with one
    of unknown truth, is rejected.
    """
    images = texts(row, "images" if "images" in row else "image")
    sentence, label = field(row, "sentence"), field(row, "label")
    if sentence is None:
        raise Reject("no caption or question", "the scene has no sentence")
    if label not in ("true", "false", None):
        raise Reject("wrong type", f"'label' is {label!r}")
    is_caption = (label or row.get("position_label")) == "true"
    if not is_caption and label is None:
        raise Reject("no caption or question", "nobody verified whether the sentence is true")
    group = text(row, "directory" if "directory" in row else "identifier")
    extra = without(row, "image", "images", "sentence")
    captions = [sentence] if is_caption else []
    qa = [(sentence, label)] if label else []
    return [Draft(PurePosixPath(image).stem, [image], captions, qa, group, extra) for image in images]


def vlmevalkit(row: Row) -> list[Draft]:
    """One question with its hint and its options below it; rows about one image stay together."""
    index, image = text(row, "index"), text(row, "image")
    options = [letter for letter in string.ascii_uppercase if row.get(letter)]
    lines = [row.get("hint"), text(row, "question"), *(f"{letter}. {row[letter]}" for letter in options)]
    question = "\n".join(line for line in lines if line)
    extra = without(row, "index", "image", "image_of", "hint", "question", "answer", *options)
    return [Draft(index, [image], (), [(question, text(row, "answer"))], text(row, "image_of"), extra)]


PRESETS: dict[str, Adapter] = {
    "coco_mini_cc": coco_mini_cc,
    "easy_vqa": easy_vqa,
    "fxemoji": fxemoji,
    "nlvr_v1": nlvr_v1,
}


def field(row: Row, name: str) -> Any:
    """Returns `row[name]`, where `"a/b"` is `row["a"]["b"]`; raises Reject if it is not there."""
    if name in row:
        return row[name]
    outer, _, inner = name.partition("/")
    if inner and isinstance(row.get(outer), dict):
        return field(row[outer], inner)
    raise Reject("missing key", f"{name!r} is not among {sorted(row)}")


def text(row: Row, name: str) -> str:
    """Returns a field that must be a text; whole numbers are written out."""
    value = field(row, name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise Reject("wrong type", f"{name!r} is {value!r}, expected text")
    return value


def names(row: Row, name: str) -> list[str]:
    """Returns a field that must be a `text` or a list of them as a list."""
    value = field(row, name)
    return [text({name: item}, name) for item in value] if isinstance(value, list) else [text(row, name)]


def texts(row: Row, name: str | None) -> list[str]:
    """Returns a field that must be a text or a list of texts as a list; no field is no text."""
    if name is None:
        return []
    value = field(row, name)
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise Reject("wrong type", f"{name!r} is {value!r}, expected text or a list of texts")
    return values


def without(row: Row, *names: str | None) -> dict[str, Any]:
    """Returns `row` less the fields `names`."""
    return {key: value for key, value in row.items() if key not in names}
