"""Every sentence is parsed with a grammar of its own and checked against the scene by brute force."""

import collections
import re

import pytest

from mmrpt_jax.scenes.captions import BOILERPLATE, MAX_WORDS, describe, tagged_sentence
from mmrpt_jax.scenes.world import WORLDS, Object, Scene, sample_scene

COLOR = r"red|green|blue|yellow|purple|orange"
SHAPE = r"circle|square|triangle|cross"
SIZE = r"small|large"
PLACE = r"(?:top|bottom) (?:left|right)|top|bottom|left|right"
NUMBER = {"zero": 0, "no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
COUNT = "|".join(NUMBER)
NOUN = re.compile(
    rf"(?:(?P<size>{SIZE}) )?(?:(?P<color>{COLOR}) )?"
    rf"(?P<shape>circles?|squares?|triangles?|crosses|cross|shapes?)"
    rf"(?: at the (?P<place>{PLACE}))?"
)
RELATION = r"left of|right of|above|below"


def at(obj, place):
    thirds = {"top": obj.y <= 21, "bottom": obj.y >= 43, "left": obj.x <= 21, "right": obj.x >= 43}
    return all(thirds[word] for word in place.split())


def members(phrase, scene):
    """Objects that a noun phrase without article describes."""
    match = NOUN.fullmatch(phrase)
    assert match, phrase
    singular = {"crosses": "cross"}.get(match["shape"], match["shape"].removesuffix("s"))
    singular = "cross" if match["shape"] == "cross" else singular
    return [
        obj
        for obj in scene.objects
        if match["size"] in (None, obj.size)
        and match["color"] in (None, obj.color)
        and singular in ("shape", obj.shape)
        and (match["place"] is None or at(obj, match["place"]))
    ]


def the(phrase, scene):
    """The one object that a definite phrase points to; fails if it is ambiguous."""
    found = members(phrase, scene)
    assert len(found) == 1, (phrase, scene)
    return found[0]


def relation_holds(a, relation, b):
    return {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}[relation]


THING = rf"((?:(?:{SIZE}) )?(?:(?:{COLOR}) )?(?:(?:{SHAPE}|shape)(?:e?s)?)(?: at the (?:{PLACE}))?)"
GRAMMAR = [
    (
        rf"(?:look , )?the {THING} is (?:not )?({COLOR}) \.",
        lambda s, n, c, no: (the(n, s).color == c) != no,
    ),
    (rf"the {THING} has the color ({COLOR}) \.", lambda s, n, c, no: the(n, s).color == c),
    (rf"the color of the {THING} is ({COLOR}) \.", lambda s, n, c, no: the(n, s).color == c),
    (rf"the {THING} is (?:not )?a ({SHAPE}) \.", lambda s, n, c, no: (the(n, s).shape == c) != no),
    (rf"the {THING} is (?:not )?({SIZE}) \.", lambda s, n, c, no: (the(n, s).size == c) != no),
    (rf"the {THING} is (?:not )?at the ({PLACE}) \.", lambda s, n, p, no: at(the(n, s), p) != no),
    (rf"at the ({PLACE}) is the {THING} \.", lambda s, p, n, no: at(the(n, s), p)),
    (
        rf"the {THING} is ({RELATION}) the {THING} \.",
        lambda s, a, r, b, no: relation_holds(the(a, s), r, the(b, s)),
    ),
    (rf"the number of {THING} is ({COUNT}) \.", lambda s, n, k, no: len(members(n, s)) == NUMBER[k]),
    (
        rf"(?:there are|the picture shows|there is(?: only)?) ({COUNT}) {THING} \.",
        lambda s, k, n, no: len(members(n, s)) == NUMBER[k],
    ),
    (rf"there is no {THING} \.", lambda s, n, no: not members(n, s)),
    (
        rf"(?:there is|i can see|the picture has) an? {THING} \.",
        lambda s, n, no: bool(members(n, s)),
    ),
    (rf"you can not (?:see an?|find any) {THING} \.", lambda s, n, no: not members(n, s)),
    (rf"there is at least one {THING} \.", lambda s, n, no: bool(members(n, s))),
    (r"there is more than one shape \.", lambda s, no: len(s.objects) > 1),
    (rf"something here is ({COLOR}) \.", lambda s, c, no: any(o.color == c for o in s.objects)),
    (rf"not everything is ({COLOR}) \.", lambda s, c, no: any(o.color != c for o in s.objects)),
]


def holds(text, scene):
    """Whether a sentence is true: every rule that can read it must agree, and at least one must read it."""
    text = text.removeprefix("so ")
    verdicts = []
    for pattern, check in GRAMMAR:
        match = re.fullmatch(pattern, text)
        if match:
            verdicts.append(check(scene, *match.groups(), " not " in text))
    assert verdicts, f"No rule reads {text!r}."
    return all(verdicts)


def captions(world="biased", count=500):
    scenes = [sample_scene(WORLDS[world], 21, i) for i in range(count)]
    return [(scene, describe(scene, 21, i)) for i, scene in enumerate(scenes)]


@pytest.mark.parametrize("world", ["biased", "unbiased", "held_out"])
def test_every_sentence_is_true_and_unambiguous(world):
    for scene, caption in captions(world):
        for sentence in caption.sentences:
            if sentence.text not in BOILERPLATE:
                assert holds(sentence.text, scene), (sentence.text, scene)


def test_the_checker_itself_tells_false_from_true():
    scene = Scene((Object("circle", "red", "small", 10, 10), Object("cross", "blue", "large", 50, 50)))
    true = [
        "the circle is red .",
        "so the circle is not blue .",
        "the cross is right of the red circle .",
        "there is no square .",
    ]
    false = [
        "the circle is blue .",
        "so the cross is not blue .",
        "the cross is left of the circle .",
        "there is a square .",
    ]
    assert [holds(text, scene) for text in true + false] == [True] * 4 + [False] * 4


def test_form_of_captions():
    for _, caption in captions():
        assert 3 <= len(caption.sentences) <= 5
        assert caption.text == " ".join(sentence.text for sentence in caption.sentences)
        assert len(caption.text.split(" ")) <= MAX_WORDS
        assert re.fullmatch(r"[a-z,. ]+", caption.text)
        assert all(sentence.words[-1] == "." for sentence in caption.sentences)
        assert len({sentence.text for sentence in caption.sentences}) == len(caption.sentences)
        needs = [sentence.needs_image for sentence in caption.sentences]
        assert sum(needs) >= 2
        assert not all(needs)


def test_spans_mark_exactly_the_attribute_words():
    vocabulary = {
        "color": set(COLOR.split("|")),
        "shape": {"circle", "square", "triangle", "cross", "circles", "squares", "triangles", "crosses"},
        "size": set(SIZE.split("|")),
        "position": {"top", "bottom", "left", "right"},
        "relation": {"left", "right", "above", "below"},
        "count": set(NUMBER),
    }
    for _, caption in captions():
        for sentence in caption.sentences:
            marked = set()
            for span in sentence.attribute_spans:
                assert set(sentence.words[span.start : span.stop]) <= vocabulary[span.kind]
                marked |= set(range(span.start, span.stop))
            named = {i for i, word in enumerate(sentence.words) if word in set.union(*vocabulary.values())}
            assert marked == (named if sentence.needs_image else set())


def test_neighbouring_words_of_a_kind_make_one_span():
    sentence = tagged_sentence("the circle/shape is at the top/position left/position .")
    assert sentence.text == "the circle is at the top left ."
    assert [(span.start, span.stop, span.kind) for span in sentence.attribute_spans] == [
        (1, 2, "shape"),
        (5, 7, "position"),
    ]


def test_consequences_stand_behind_what_they_follow_from():
    found = 0
    for _, caption in captions():
        for i, sentence in enumerate(caption.sentences):
            if match := re.fullmatch(rf"so (the .+) is not (?:{COLOR}) \.", sentence.text):
                found += 1
                assert any(match[1] in earlier.text for earlier in caption.sentences[:i])
    assert found > 20


def test_no_color_is_told_twice():
    """What an earlier sentence told about an object never comes again as needing the image."""
    checked = 0
    for scene, caption in captions(count=1000):
        known = set()
        for sentence in caption.sentences:
            told = re.fullmatch(
                rf"(?:look , |the color of )?the {THING} (?:is|has the color) ({COLOR}) \.", sentence.text
            )
            if told and sentence.needs_image:
                checked += 1
                assert the(told[1], scene) not in known
            for phrase in re.findall(rf"\bthe ((?:{SIZE} )?(?:{COLOR}) (?:{SHAPE}|shape)\b)", sentence.text):
                if len(members(phrase, scene)) == 1:
                    known.add(the(phrase, scene))
            if told:
                known.add(the(told[1], scene))
    assert checked > 300


def test_boilerplate_stands_at_any_place_and_colors_on_both_sides_of_shapes():
    places, orders = collections.Counter(), collections.Counter()
    for _, caption in captions(count=1000):
        last = len(caption.sentences) - 1
        for i, sentence in enumerate(caption.sentences):
            if sentence.text in BOILERPLATE:
                places["first" if i == 0 else "last" if i == last else "middle"] += 1
            kinds = [span.kind for span in sentence.attribute_spans]
            if "color" in kinds and "shape" in kinds:
                orders[kinds.index("color") > kinds.index("shape")] += 1
    assert all(places[place] > 100 for place in ("first", "middle", "last"))
    assert orders[True] / orders.total() > 0.45
    assert orders[False] / orders.total() > 0.2


def test_caption_is_a_pure_function_and_varies_with_the_index():
    scene = sample_scene(WORLDS["biased"], 5, 0)
    assert describe(scene, 1, 2) == describe(scene, 1, 2)
    assert len({describe(scene, 1, i).text for i in range(30)}) > 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_objects_that_nothing_tells_apart_can_be_described(count):
    scene = Scene(tuple(Object("square", "green", "small", 28, 26 + 16 * i) for i in range(count)))
    for i in range(50):
        assert sum(sentence.needs_image for sentence in describe(scene, 0, i).sentences) >= 2
        for sentence in describe(scene, 0, i).sentences:
            assert sentence.text in BOILERPLATE or holds(sentence.text, scene), sentence.text
