"""The clauses that a caption states: captions read back with a grammar of their own sentences.

What is read is exact, and less than what is said: sizes, places, totals and numbers of colours have no clause
and are passed over, and so is every sentence that `captions` would not write, however like one it looks.
"""

import re
from collections.abc import Iterator

from mmrpt_jax.scenes.clauses import Clause, Clauses
from mmrpt_jax.scenes.references import POSITIONS, RELATIONS, relation_phrase, untag
from mmrpt_jax.scenes.statements import NUMBERS, plural
from mmrpt_jax.scenes.world import COLORS, SHAPES, SIZES

Kind = tuple[str, str | None]
"""A shape, and a colour if it is known."""


def _any_of(words: tuple[str, ...]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_COLOR, _SHAPE, _SIZE, _PLACE = (_any_of(words) for words in (COLORS, SHAPES, SIZES, POSITIONS))
_PHRASES = {untag(relation_phrase(relation)): relation for relation in RELATIONS}
_SINGULAR = {plural(shape): shape for shape in SHAPES}
_PLURAL = _any_of(tuple(_SINGULAR))


def _thing(name: str = "", *, size: bool = True, color: bool = True, place: bool = True) -> str:
    """Pattern of a noun phrase with a shape, whose attributes may be limited to some; groups end in `name`."""
    sizes = f"(?:{_SIZE} )?" if size else ""
    colors = f"(?:(?P<color{name}>{_COLOR}) )?" if color else ""
    places = f"(?: at the {_PLACE})?" if place else ""
    return f"{sizes}{colors}(?P<shape{name}>{_SHAPE}){places}"


_EXIST = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?:there is|i can see|the picture has) an? {_thing()}",
        rf"there is at least one {_thing(size=False, color=False, place=False)}",
        # The colour is told after the shape.
        rf"(?:look , )?the {_thing(color=False)} (?:is|has the color) (?P<color>{_COLOR})",
        rf"the color of the {_thing(color=False)} is (?P<color>{_COLOR})",
        # The shape is told after the colour.
        rf"the (?:{_SIZE} )?(?:(?P<color>{_COLOR}) )?shape(?: at the {_PLACE})? is a (?P<shape>{_SHAPE})",
        # What a size, a place or a denial is told of exists.
        rf"the {_thing()} is (?:not )?(?:{_SIZE}|at the {_PLACE})",
        rf"the {_thing()} is not (?:{_COLOR}|a {_SHAPE})",
        rf"at the {_PLACE} is the {_thing()}",
    )
)
_RELATION = re.compile(
    rf"the {_thing()} is (?P<relation>{_any_of(tuple(_PHRASES))}) the {_thing('_of_other')}"
)
_NUMBER = tuple(
    re.compile(pattern)
    for pattern in (
        rf"the number of (?P<shape>{_PLURAL}) is (?P<number>{_any_of(NUMBERS)})",
        rf"there are (?P<number>{_any_of(NUMBERS[2:])}) (?P<shape>{_PLURAL})",
        rf"there is only (?P<number>one) (?P<shape>{_SHAPE})",
    )
)
_ABSENT = tuple(
    re.compile(pattern)
    for pattern in (
        rf"there is no {_thing(size=False, place=False)}",
        rf"there are no (?P<shape>{_PLURAL})",
        rf"you can not see an? {_thing(size=False, place=False)}",
        rf"you can not find any (?P<shape>{_PLURAL})",
    )
)


def clauses_of_caption(text: str) -> Clauses:
    """What a caption says is there, and is not there.

    Numbers in `include` are lower bounds: "there is a red circle ." includes one red circle, whatever other
    sentences say of circles; "there are two circles ." includes two and excludes three. A relation becomes a clause
    of its own behind the clause of what it relates to. Relations are the captions' own (`references.related`),
    which hold in some scenes where GenEval's stricter rule (`clauses.stands`) does not.

    Args:
      text: Sentences as in captions, which need not have been written by `captions`.

    Returns:
      One clause without relation for every shape and colour in the order of mention, with the largest number
      stated; then the relations; excluded are the smallest numbers stated. Empty if no sentence is understood.
    """
    least: dict[Kind, int] = {}
    fewer: dict[Kind, int] = {}
    relations: list[tuple[Kind, str, Kind]] = []
    for sentence in text.split("."):
        words = " ".join(sentence.split()).removeprefix("so ")
        for kind, lowest, excluded in _numbers(words):
            if lowest:
                least[kind] = max(least.get(kind, 0), lowest)
            if excluded:
                fewer[kind] = min(fewer.get(kind, excluded), excluded)
        if match := _RELATION.fullmatch(words):
            first, other = _kind(match), _kind(match, "_of_other")
            least.setdefault(first, 1)
            least.setdefault(other, 1)
            relations.append((first, _PHRASES[match["relation"]], other))
    kinds = list(least)
    return Clauses(
        include=(
            *(Clause(shape, count, color) for (shape, color), count in least.items()),
            *(
                Clause(shape, color=color, relation=(relation, kinds.index(other)))
                for (shape, color), relation, other in dict.fromkeys(relations)
            ),
        ),
        exclude=tuple(Clause(shape, count, color) for (shape, color), count in fewer.items()),
    )


def _kind(match: re.Match[str], name: str = "") -> Kind:
    shape = match[f"shape{name}"]
    return _SINGULAR.get(shape, shape), match.groupdict().get(f"color{name}")


def _numbers(words: str) -> Iterator[tuple[Kind, int, int]]:
    """What a sentence says about numbers: (shape and colour, at least so many, fewer than so many); 0 is nothing."""
    for pattern in _EXIST:
        if match := pattern.fullmatch(words):
            yield _kind(match), 1, 0
    for pattern in _ABSENT:
        if match := pattern.fullmatch(words):
            yield _kind(match), 0, 1
    for pattern in _NUMBER:
        if match := pattern.fullmatch(words):
            number = NUMBERS.index(match["number"])
            yield _kind(match), number, number + 1
