"""Prompts to draw from, in the six shapes of GenEval's, and the scenes that they ask for.

`prompt_at` is a pure function of (world, tag, seed, index) and `scene_for` draws a prompt's ground truth, so
that (prompt, render(scene)) is a training pair; `prompts_of_scene` goes the other way. A world decides which
compositions a prompt may name and which colours it leaves to chance. The space of prompts is small: two splits
share texts, never seeds; what training cannot have seen are the compositions of the held-out world.

A named colour is any that the world allows, all alike; the world's bias shows where no colour is named.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from mmrpt_jax.scenes.clauses import TAGS, Clause, Clauses, ScenePrompt, stands, strict
from mmrpt_jax.scenes.references import INVERSE, RELATIONS, relation_phrase, untag
from mmrpt_jax.scenes.statements import NUMBERS, plural, with_article
from mmrpt_jax.scenes.world import (
    MAX_OBJECTS,
    RADIUS,
    SHAPES,
    SIZES,
    Object,
    Scene,
    World,
    draw_centres,
    draw_color,
    pick,
)

COUNTS = (2, 3, 4)
"""Numbers that counting prompts ask for, as GenEval's do."""

_STREAM = 4
_MAX_DRAWS = 1_000
_FRAMES = (
    "draw {} .",
    "draw a picture of {} .",
    "draw {} on a plain background .",
    "show {} .",
    "a picture of {} .",
    "a simple picture with {} .",
    "an image of {} .",
    "this is a picture of {} .",
    "the picture shows {} .",
    "i can see {} .",
    "here is a picture with {} .",
    "{} .",
)


def tags_of(world: World) -> tuple[str, ...]:
    """The tags that a world has prompts for: all, or, where it requires compositions, those that name one."""
    return ("colors", "color_attr") if world.required else TAGS


def prompt_at(world: World, tag: str, seed: int, index: int) -> ScenePrompt:
    """The prompt number `index` of a tag.

    Of n different demands that a tag can make in a world, each is made once in every block `kn ... kn + n - 1` of
    indices. Compositions named are those that the world requires, if any, else those that it does not exclude.

    Args:
      world: Which compositions may be named.
      tag: One of `tags_of(world)`.
      seed: ≥ 0, see `splits`.
      index: ≥ 0.

    Raises:
      ValueError: If the world has no prompts of this tag.
    """
    if tag not in tags_of(world):
        raise ValueError(f"This world has prompts of the tags {tags_of(world)}, not {tag!r}.")
    options = _demands(world, tag)
    block, place = divmod(index, len(options))
    stream = TAGS.index(tag)
    order = np.random.default_rng((seed, block, _STREAM, stream)).permutation(len(options))
    rng = np.random.default_rng((seed, index, _STREAM + 1, stream))
    return _worded(tag, options[order[place]], rng)


def scene_for(prompt: ScenePrompt, world: World, seed: int, index: int) -> Scene:
    """A scene that shows what the prompt includes, in exactly these numbers, and nothing else.

    Colours that the prompt leaves open follow the world, sizes have even odds, places are free but for the
    relation.

    Args:
      prompt: What to show.
      world: Colours of what has none; its numbers of objects play no part.
      seed: ≥ 0.
      index: ≥ 0; other indices give other scenes of the same prompt.

    Raises:
      ValueError: If the prompt names a composition that the world excludes, or more objects than fit.
      RuntimeError: If no scene meets the prompt, because its clauses contradict each other.
    """
    wanted = [clause for clause in prompt.clauses.include for _ in range(clause.count)]
    if banned := [clause for clause in wanted if (clause.color, clause.shape) in world.excluded]:
        raise ValueError(f"{prompt.text!r} names {banned[0]}, which this world excludes.")
    if len(wanted) > MAX_OBJECTS:
        raise ValueError(
            f"{prompt.text!r} asks for {len(wanted)} objects; a scene holds up to {MAX_OBJECTS}."
        )
    rng = np.random.default_rng((seed, index, _STREAM + 2, TAGS.index(prompt.tag)))
    colors = [clause.color or draw_color(world, clause.shape, rng) for clause in wanted]
    sizes = [pick(rng, SIZES) for _ in wanted]
    for _ in range(_MAX_DRAWS):
        centres = draw_centres(rng, [RADIUS[size] for size in sizes])
        objects = tuple(
            Object(clause.shape, color, size, x, y)
            for clause, color, size, (x, y) in zip(wanted, colors, sizes, centres, strict=True)
        )
        if strict(objects, prompt.clauses, exact=True):
            return Scene(objects)
    raise RuntimeError(f"No scene meets {prompt.text!r} with the clauses {prompt.clauses}.")


def prompts_of_scene(
    scene: Scene, seed: int, index: int, *, complete: bool = True
) -> tuple[ScenePrompt, ...]:
    """One true prompt of every tag that suits the scene, in the order of `TAGS`; all numbers are exact.

    Args:
      scene: What to describe.
      seed: Seed of the choice and the wording, ≥ 0.
      index: ≥ 0; other indices give other prompts of the same scene.
      complete: Whether a prompt must account for every object, so that the scene is what a reader of the prompt
        expects; few scenes of the named worlds are so simple. Otherwise, objects of other shapes may lie about.

    Returns:
      Prompts that name no compositions but the scene's, so that worlds without held-out ones give none that names
      them; nothing if no tag suits.
    """
    rng = np.random.default_rng((seed, index, _STREAM + 3))
    found: dict[str, list[Clauses]] = {tag: [] for tag in TAGS}
    for tag, clauses in _truths(scene):
        named = sum(clause.count for clause in clauses.include)
        if not complete or named == len(scene.objects):
            found[tag].append(clauses)
    return tuple(_worded(tag, pick(rng, options), rng) for tag, options in found.items() if options)


def _counted(shape: str, count: int) -> Clauses:
    return Clauses((Clause(shape, count),), exclude=(Clause(shape, count + 1),))


def _placed(shape: str, relation: str, other: str) -> Clauses:
    return Clauses((Clause(other), Clause(shape, relation=(relation, 0))))


def _colored(pairs: Iterable[tuple[str, str]]) -> Clauses:
    return Clauses(tuple(Clause(shape, color=color) for color, shape in pairs))


def _truths(scene: Scene) -> Iterator[tuple[str, Clauses]]:
    """Everything that prompts can say about a scene: (tag, clauses)."""
    numbers = Counter(obj.shape for obj in scene.objects)
    yield from (("counting", _counted(shape, n)) for shape, n in numbers.items() if n in COUNTS)
    single = [obj for obj in scene.objects if numbers[obj.shape] == 1]
    for obj in single:
        yield "single_object", Clauses((Clause(obj.shape),))
        yield "colors", _colored([obj.pair])
    for first, second in itertools.permutations(single, 2):
        yield "two_object", Clauses((Clause(first.shape), Clause(second.shape)))
        for relation in RELATIONS:
            if stands(first, relation, second):
                yield "position", _placed(first.shape, relation, second.shape)
        if first.color != second.color:
            yield "color_attr", _colored([first.pair, second.pair])


@functools.cache
def _demands(world: World, tag: str) -> tuple[Clauses, ...]:
    """Everything that prompts of a tag can ask for in a world."""
    pairs = world.required or tuple(
        (color, shape) for shape in SHAPES for color in world.allowed_colors(shape)
    )
    shapes = list(itertools.permutations(SHAPES, 2))
    match tag:
        case "single_object":
            return tuple(Clauses((Clause(shape),)) for shape in SHAPES)
        case "two_object":
            return tuple(Clauses((Clause(first), Clause(second))) for first, second in shapes)
        case "counting":
            return tuple(_counted(shape, count) for shape in SHAPES for count in COUNTS)
        case "colors":
            return tuple(_colored([pair]) for pair in pairs)
        case "position":
            return tuple(_placed(first, r, second) for first, second in shapes for r in RELATIONS)
        case "color_attr":
            both = itertools.permutations(pairs, 2)
            return tuple(_colored((a, b)) for a, b in both if a[0] != b[0] and a[1] != b[1])
    raise ValueError(f"Unknown tag {tag!r}; choose one of {TAGS}.")


def _worded(tag: str, clauses: Clauses, rng: np.random.Generator) -> ScenePrompt:
    """A prompt with a random wording of the clauses: a phrase in one of the frames, or a sentence of its own."""
    things = [_noun_phrase(clause) for clause in clauses.include]
    last = clauses.include[-1]
    phrases = [" and ".join(things)]
    sentences = [f"there is {phrases[0]} ."]
    if last.count > 1:
        number = f"the number of {plural(last.shape)} is {NUMBERS[last.count]} ."
        sentences = [f"there are {phrases[0]} .", number]
    if last.relation is not None:
        (target, thing), relation = things, last.relation[0]
        there, back = (untag(relation_phrase(word)) for word in (relation, INVERSE[relation]))
        phrases = [f"{thing} {there} {target}", f"{target} with {thing} {there} it"]
        sentences = [f"{thing} is {there} {target} .", f"{target} is {back} {thing} ."]
    phrase = pick(rng, phrases)
    text = pick(rng, [*(frame.format(phrase) for frame in _FRAMES), pick(rng, sentences)])
    return ScenePrompt(text, tag, clauses)


def _noun_phrase(clause: Clause) -> str:
    if clause.count == 1:
        return with_article(clause.noun())
    return f"{NUMBERS[clause.count]} {clause.noun(clause.count)}"
