"""Captions: a few true sentences about a scene, some of which need the image and some of which do not.

Words are lower case and separated by single spaces, the full stop included. Every sentence says whether it
needs the image and which of its words are visual attributes: the ground truth for dependency scores.

Read from left to right, no sentence that needs the image states what earlier sentences already told.
"""

import dataclasses
import itertools

import numpy as np

from mmrpt_jax.scenes import statements
from mmrpt_jax.scenes.references import untag
from mmrpt_jax.scenes.statements import Fact, Statement
from mmrpt_jax.scenes.world import Scene, pick

MAX_WORDS = 40
BOILERPLATE = (
    "this is a simple picture .",
    "this is a small picture with a few shapes .",
    "the shapes are drawn on a plain background .",
    "the background is plain .",
    "the picture was made by a computer .",
    "here is what it shows .",
    "no two shapes touch each other .",
    "every shape has one color .",
    "nothing is written on the picture .",
    "a circle is round .",
    "a circle has no corners .",
    "a square has four equal sides .",
    "a triangle has three corners .",
    "a cross is made of two bars .",
    "red , green and blue are colors .",
)
"""Sentences that are true of every scene."""

_STREAM = 1
_PLAIN_RESERVE = 12
_MAX_DRAWS = 200
_PATIENCE = 12
_CENSUS = (statements.total_statement, statements.count_statement) + 2 * (statements.presence_statement,)
_DETAILS = (
    7 * (statements.color_statement,)
    + 2 * (statements.existence_statement,)
    + 2 * (statements.relation_statement,)
    + (statements.shape_statement, statements.size_statement, statements.position_statement)
)


@dataclasses.dataclass(frozen=True)
class AttributeSpan:
    """Words `start` to `stop` (exclusive) of a sentence name one visual attribute.

    `kind` is one of color, shape, size, position, count, relation.
    """

    start: int
    stop: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence of a caption; only those that need the image have attribute spans."""

    text: str
    needs_image: bool
    attribute_spans: tuple[AttributeSpan, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Words and punctuation, as the spans count them."""
        return tuple(self.text.split())


@dataclasses.dataclass(frozen=True)
class Caption:
    """Sentences in order."""

    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The sentences, joined by a space."""
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def words(self) -> tuple[str, ...]:
        """Words and punctuation of all sentences."""
        return tuple(self.text.split())


def describe(scene: Scene, seed: int, index: int) -> Caption:
    """Describes a scene in three to five sentences, at most `MAX_WORDS` words with punctuation.

    One or two sentences do not need the image: boilerplate, which stands anywhere, or consequences, which
    stand somewhere behind the statement that they follow from.

    Args:
      scene: What to describe; at least one object.
      seed: Seed of the wording, ≥ 0.
      index: Number of the caption, ≥ 0; other numbers give other captions of the same scene.
    """
    rng = np.random.default_rng((seed, index, _STREAM))
    length = int(rng.integers(3, 6))
    plain = 1 if length == 3 else int(rng.integers(1, 3))
    told = _choose_statements(scene, rng, length - plain)
    sentences = [tagged_sentence(statement.text) for statement in told]
    sources = dict(zip(sentences, told, strict=True))
    for _ in range(plain):
        start, text = 0, pick(rng, BOILERPLATE)
        if rng.random() < 0.5:
            source = pick(rng, list(sources))
            start, text = sentences.index(source) + 1, pick(rng, sources[source].consequences)
        sentence = Sentence(text, needs_image=False)
        if sentence not in sentences and _count_words([*sentences, sentence]) <= MAX_WORDS:
            sentences.insert(int(rng.integers(start, len(sentences) + 1)), sentence)
    return Caption(tuple(sentences))


def tagged_sentence(text: str) -> Sentence:
    """A sentence that needs the image, from tagged text: neighbouring words with one tag make one span."""
    kinds = [word.partition("/")[2] for word in text.split()]
    spans, start = [], 0
    for kind, group in itertools.groupby(kinds):
        stop = start + len(list(group))
        if kind:
            spans.append(AttributeSpan(start, stop, kind))
        start = stop
    return Sentence(untag(text), needs_image=True, attribute_spans=tuple(spans))


def _choose_statements(scene: Scene, rng: np.random.Generator, count: int) -> list[Statement]:
    """Up to `count` statements, each with news; half of the time the first is a count or a presence."""
    chosen: list[Statement] = []
    known: set[Fact] = set()
    words = 0
    if rng.random() < 0.5:
        chosen.append(pick(rng, _CENSUS)(scene, rng))
        known |= chosen[0].given
        words = len(chosen[0].text.split())
    misses = 0
    while len(chosen) < count and misses < (_MAX_DRAWS if len(chosen) < 2 else _PATIENCE):
        misses += 1
        statement = pick(rng, _DETAILS)(scene, rng)
        if statement is None or statement.news & known:
            continue
        length = len(statement.text.split())
        if words + length <= MAX_WORDS - _PLAIN_RESERVE:
            chosen.append(statement)
            known |= statement.news | statement.given
            words += length
            misses = 0
    if len(chosen) < 2:
        # Objects that nothing tells apart leave nothing else to say; their number is always news.
        chosen.append(statements.total_statement(scene, rng))
    return chosen


def _count_words(sentences: list[Sentence]) -> int:
    return sum(len(sentence.words) for sentence in sentences)
