"""Questions about scenes, with balanced answers.

Every question comes with a cloze: a sentence in the captions' own wording with one blank, so that a model
that has only read captions can answer by comparing how likely each candidate is in the blank.

How answers are balanced: `question_at` first fixes what is asked (its *form*, e.g. "the number of circles")
and the answer, then draws scenes until one has that answer. Answers run through all candidates once in every
block of as many indices, whatever the form, so the candidates are equally frequent and, except as stated
next, the wording does not give the answer away. A biased world keeps its bias inside the scene: where a
question names a shape and asks for its colour, all six colours are equally frequent answers, but among the
questions with answer "red" most are about circles. `Question.bias_answer` says what a reader of the training
world would guess.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from mmrpt_jax.scenes.references import (
    Reference,
    identifying_references,
    related,
    relation_phrase,
    untag,
)
from mmrpt_jax.scenes.statements import (
    COLOR_REFERENCES,
    NUMBERS,
    SHAPE_REFERENCES,
    THING_REFERENCES,
    plural,
    with_article,
)
from mmrpt_jax.scenes.world import (
    BIASED_FAVOURITES,
    COLORS,
    SHAPES,
    SIZES,
    WORLDS,
    Object,
    Scene,
    World,
    draw_scene,
    pick,
)

BLANK = "[MASK]"
KINDS = ("what", "color", "count", "relation", "yes_no")
RELATION_PAIRS = (("left", "right"), ("above", "below"))

_STREAM = 2
_MAX_DRAWS = 100_000


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
      kind: One of `KINDS`.
      question: Natural language, words separated by spaces.
      answer: The candidate that makes the cloze true.
      cloze: A sentence in the captions' wording with exactly one `BLANK`.
      candidates: What may stand in the blank; exactly one of them is true of the scene.
      bias_answer: For colours, the training world's favourite colour of the shape asked about; else `None`.
    """

    kind: str
    question: str
    answer: str
    cloze: str
    candidates: tuple[str, ...]
    bias_answer: str | None = None

    @property
    def statement(self) -> str:
        """The cloze with the true answer filled in."""
        return self.cloze.replace(BLANK, self.answer)

    @property
    def reply(self) -> str:
        """The answer as one would say it: "yes" or "no" for yes/no questions, else the answer itself."""
        return self.answer if self.kind != "yes_no" else ("no" if self.answer == "no" else "yes")


@dataclasses.dataclass(frozen=True)
class Form:
    """What is asked: `build(scene, answer, rng)` asks it of a scene with that answer, or returns `None`."""

    candidates: tuple[str, ...]
    build: Callable[[Scene, str, np.random.Generator], Question | None]


def question_at(world: World, kind: str, seed: int, index: int) -> tuple[Scene, Question]:
    """The question number `index` of a kind, together with a scene of the world that has its answer.

    Of the indices `kn ... kn + n - 1`, n being the number of candidates, each has another candidate as its
    answer. Where the world requires compositions (held-out ones), colours, shapes and presence are asked of
    those.

    Args:
      world: Where scenes come from.
      kind: One of `KINDS`.
      seed: ≥ 0.
      index: ≥ 0.

    Raises:
      ValueError: If the kind is unknown.
      RuntimeError: If no scene of the world has the answer.
    """
    rng = np.random.default_rng((seed, index, _STREAM))
    form = pick(rng, forms(kind, world))
    block, place = divmod(index, len(form.candidates))
    order = np.random.default_rng((seed, block, _STREAM + 1)).permutation(len(form.candidates))
    answer = form.candidates[order[place]]
    for _ in range(_MAX_DRAWS):
        scene = draw_scene(world, rng)
        if question := form.build(scene, answer, rng):
            return scene, question
    raise RuntimeError(f"No scene of {world} answers a {kind!r} question with {answer!r}.")


def ask_color(thing: str, shape: str, answer: str) -> Question:
    """Asks for the colour of `thing` ("the large circle"), which is of that shape."""
    favourite = dict(BIASED_FAVOURITES)[shape]
    return Question("color", f"what color is {thing} ?", answer, f"{thing} is {BLANK} .", COLORS, favourite)


def ask_count(things: str, answer: str, candidates: tuple[str, ...]) -> Question:
    """Asks for the number of `things` ("circles")."""
    cloze = f"the number of {things} is {BLANK} ."
    return Question("count", f"how many {things} are there ?", answer, cloze, candidates)


def ask_relation(first: str, second: str, answer: str) -> Question:
    """Asks how one thing lies to another, given the answer, one of `RELATIONS`; its opposite is the alternative."""
    candidates = next(pair for pair in RELATION_PAIRS if answer in pair)
    phrase = untag(relation_phrase(answer))
    question = f"is {first} {phrase.replace(answer, ' or '.join(candidates))} {second} ?"
    cloze = f"{first} is {phrase.replace(answer, BLANK)} {second} ."
    return Question("relation", question, answer, cloze, candidates)


def ask_presence(noun: str, *, present: bool) -> Question:
    """Asks whether there is something that `noun` ("red circle") names."""
    thing = with_article(noun)
    article = thing.split()[0]
    answer = article if present else "no"
    return Question("yes_no", f"is there {thing} ?", answer, f"there is {BLANK} {noun} .", (article, "no"))


def ask(scene: Scene, seed: int, index: int) -> tuple[Question, ...]:
    """One question of every kind that the scene allows, in the order of `KINDS`; answers are not balanced.

    Args:
      scene: What to ask about.
      seed: Seed of the choice of questions, ≥ 0.
      index: ≥ 0; other indices give other questions about the same scene.
    """
    rng = np.random.default_rng((seed, index, _STREAM))
    found = (_first_question(scene, forms(kind, WORLDS["unbiased"]), rng) for kind in KINDS)
    return tuple(question for question in found if question)


@functools.cache
def forms(kind: str, world: World) -> tuple[Form, ...]:
    """What may be asked in a world.

    Raises:
      ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of question {kind!r}; choose one of {KINDS}.")
    return _FORMS[kind](world)


def _first_question(scene: Scene, options: tuple[Form, ...], rng: np.random.Generator) -> Question | None:
    for i in rng.permutation(len(options)):
        for answer in rng.permutation(options[i].candidates):
            if question := options[i].build(scene, str(answer), rng):
                return question
    return None


def _what_forms(world: World) -> tuple[Form, ...]:
    def build(scene: Scene, answer: str, rng: np.random.Generator) -> Question | None:
        subjects = [obj for obj in _subjects(scene, world) if obj.shape == answer]
        if not (phrase := _point(scene, subjects, SHAPE_REFERENCES, rng)):
            return None
        return Question("what", f"what is {phrase[1]} ?", answer, f"{phrase[1]} is a {BLANK} .", SHAPES)

    return (Form(SHAPES, build),)


def _color_forms(world: World) -> tuple[Form, ...]:
    def build(scene: Scene, answer: str, rng: np.random.Generator) -> Question | None:
        subjects = [obj for obj in _subjects(scene, world) if obj.color == answer]
        if not (phrase := _point(scene, subjects, COLOR_REFERENCES, rng)):
            return None
        obj, text = phrase
        return ask_color(text, obj.shape, answer)

    return (Form(COLORS, build),)


def _count_forms(world: World) -> tuple[Form, ...]:
    def form(things: str, lowest: int, highest: int, **attributes: str) -> Form:
        candidates = NUMBERS[lowest : highest + 1]

        def build(scene: Scene, answer: str, rng: np.random.Generator) -> Question | None:
            del rng
            count = sum(Reference(**attributes).matches(obj) for obj in scene.objects)
            return ask_count(things, answer, candidates) if NUMBERS[count] == answer else None

        return Form(candidates, build)

    most = min(3, world.max_objects)
    return (
        form("shapes", world.min_objects, world.max_objects),
        *(form(f"{size} shapes", 0, most, size=size) for size in SIZES),
        *(form(plural(shape), 0, most, shape=shape) for shape in SHAPES),
    )


def _relation_forms(world: World) -> tuple[Form, ...]:
    del world

    def form(candidates: tuple[str, str]) -> Form:
        def build(scene: Scene, answer: str, rng: np.random.Generator) -> Question | None:
            pairs = itertools.permutations(scene.objects, 2)
            related_pairs = [(first, second) for first, second in pairs if related(first, answer, second)]
            for i in rng.permutation(len(related_pairs)):
                first, second = (_point(scene, (obj,), THING_REFERENCES, rng) for obj in related_pairs[i])
                if first and second:
                    return ask_relation(first[1], second[1], answer)
            return None

        return Form(candidates, build)

    return tuple(form(pair) for pair in RELATION_PAIRS)


def _yes_no_forms(world: World) -> tuple[Form, ...]:
    def form(reference: Reference) -> Form:
        noun = untag(reference.noun_phrase)
        candidates = ask_presence(noun, present=True).candidates

        def build(scene: Scene, answer: str, rng: np.random.Generator) -> Question | None:
            del rng
            present = any(reference.matches(obj) for obj in scene.objects)
            return ask_presence(noun, present=present) if present == (answer != "no") else None

        return Form(candidates, build)

    pairs = world.required or [(color, shape) for shape in SHAPES for color in world.allowed_colors(shape)]
    shapes = () if world.required else SHAPES
    return (
        *(form(Reference(shape=shape)) for shape in shapes),
        *(form(Reference(shape=shape, color=color)) for color, shape in pairs),
    )


def _subjects(scene: Scene, world: World) -> list[Object]:
    """Objects worth asking about: those of a required composition, or all if the world requires none."""
    return [obj for obj in scene.objects if not world.required or obj.pair in world.required]


def _point(
    scene: Scene,
    subjects: Sequence[Object],
    combinations: tuple[tuple[str, ...], ...],
    rng: np.random.Generator,
) -> tuple[Object, str] | None:
    """A random subject and plain text that points to it alone, or `None` if no subject has such a text."""
    for i in rng.permutation(len(subjects)):
        if references := identifying_references(scene, subjects[i], combinations):
            return subjects[i], untag(pick(rng, references).text)
    return None


_FORMS: dict[str, Callable[[World], tuple[Form, ...]]] = {
    "what": _what_forms,
    "color": _color_forms,
    "count": _count_forms,
    "relation": _relation_forms,
    "yes_no": _yes_no_forms,
}
