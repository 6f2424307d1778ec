import collections
import re

import pytest

from mmrpt_jax.scenes.captions import describe
from mmrpt_jax.scenes.captions_test import holds
from mmrpt_jax.scenes.questions import BLANK, KINDS, ask, question_at
from mmrpt_jax.scenes.world import BIASED_FAVOURITES, HELD_OUT, SHAPES, WORLDS, World, sample_scene

CASES = [(name, kind) for name in sorted(WORLDS) for kind in KINDS]


def asked(name, kind, count=48):
    return [question_at(WORLDS[name], kind, 5, i) for i in range(count)]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_exactly_one_candidate_makes_the_cloze_true(name, kind):
    for scene, question in asked(name, kind):
        assert question.kind == kind
        assert question.question.endswith(" ?")
        assert question.cloze.split().count(BLANK) == 1
        assert question.answer in question.candidates
        true = [c for c in question.candidates if holds(question.cloze.replace(BLANK, c), scene)]
        assert true == [question.answer], (question, scene)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_answers_are_balanced(name, kind):
    """48 is a multiple of 2, 4 and 6 candidates; "a" and "an" count as one."""
    places = collections.Counter(q.candidates.index(q.answer) for _, q in asked(name, kind))
    assert set(places.values()) == {48 // len(places)}
    assert len(places) == {"what": 4, "color": 6, "count": 4, "relation": 2, "yes_no": 2}[kind]


@pytest.mark.parametrize("kind", ["count", "relation", "yes_no"])
def test_wording_does_not_give_the_answer_away(kind):
    """Given what is asked (references to things set aside), every candidate is as likely as the others."""
    answers = collections.defaultdict(collections.Counter)
    for i in range(400):
        _, question = question_at(WORLDS["biased"], kind, 6, i)
        # Numbers of things and presence are told apart by noun, relations by axis.
        wording = question.candidates if kind == "relation" else question.cloze
        answers[wording][question.candidates.index(question.answer)] += 1
    for counts in answers.values():
        candidates = {"count": 4, "relation": 2, "yes_no": 2}[kind]
        expected = counts.total() / candidates
        chi2 = sum((counts[place] - expected) ** 2 / expected for place in range(candidates))
        # About six standard deviations above the mean of the chi-squared distribution.
        assert chi2 < candidates - 1 + 6 * (2 * (candidates - 1)) ** 0.5


def test_bias_answer_is_the_training_favourite_and_fails_outside_the_biased_world():
    hits = {}
    for name in WORLDS:
        questions = [question for _, question in asked(name, "color", 120)]
        for question in questions:
            (shape,) = [shape for shape in SHAPES if f" {shape} " in question.cloze]
            assert question.bias_answer == dict(BIASED_FAVOURITES)[shape]
        hits[name] = sum(question.answer == question.bias_answer for question in questions) / 120
    # In the biased world four of six answers are favourites, and those mostly of the shape asked about.
    assert 0.5 < hits["biased"] <= 4 / 6
    assert hits["flipped"] < 0.1
    assert hits["unbiased"] == pytest.approx(1 / 6, abs=0.12)
    assert hits["held_out"] == 0.0
    assert asked("biased", "what", 1)[0][1].bias_answer is None


def test_held_out_questions_are_about_held_out_compositions():
    for _, question in asked("held_out", "color"):
        (shape,) = [shape for shape in SHAPES if f" {shape} " in question.cloze]
        assert (question.answer, shape) in HELD_OUT
    for _, question in asked("held_out", "yes_no"):
        color, shape = question.cloze.split()[3:5]
        assert (color, shape) in HELD_OUT


def pattern(sentence):
    """A sentence with its attributes replaced by their kinds, and definite descriptions by THING."""
    for kind, words in {
        "SHAPES": "circles|squares|triangles|crosses",
        "SHAPE": "circle|square|triangle|cross",
        "COLOR": "red|green|blue|yellow|purple|orange",
        "SIZE": "small|large",
        "NUMBER": "zero|one|two|three|four|five",
        "PLACE": "(?:top|bottom) (?:left|right)|top|bottom|(?:left|right)(?! of)",
        "SIDE": "left|right",
        "ARTICLE": "an?",
    }.items():
        sentence = re.sub(rf"\b(?:{words})\b", kind, sentence)
    return re.sub(r"\bthe (?:SIZE )?(?:COLOR )?(?:SHAPE|shape)(?: at the PLACE)?\b", "THING", sentence)


def test_clozes_are_worded_like_captions():
    world = WORLDS["unbiased"]
    known = {
        pattern(sentence.text)
        for i in range(1500)
        for sentence in describe(sample_scene(world, 1, i % 500), 1, i).sentences
        if sentence.needs_image
    }
    for kind in KINDS:
        for _, question in asked("unbiased", kind):
            assert pattern(question.statement) in known, question.statement


def test_ask_asks_true_questions_about_a_given_scene():
    kinds = collections.Counter()
    for i in range(100):
        scene = sample_scene(WORLDS["biased"], 2, i)
        questions = ask(scene, 2, i)
        kinds.update(question.kind for question in questions)
        assert [q.kind for q in questions] == [kind for kind in KINDS if kind in {q.kind for q in questions}]
        for question in questions:
            assert holds(question.statement, scene)
    assert kinds["count"] == kinds["yes_no"] == 100
    assert min(kinds.values()) > 70


def test_questions_are_pure_functions_of_seed_and_index():
    world = WORLDS["flipped"]
    assert question_at(world, "color", 3, 4) == question_at(world, "color", 3, 4)
    assert question_at(world, "color", 3, 4) != question_at(world, "color", 4, 4)
    scene = sample_scene(world, 0, 0)
    assert ask(scene, 1, 1) == ask(scene, 1, 1)


def test_replies_say_yes_and_no():
    replies = {(q.answer in ("a", "an"), q.reply) for _, q in asked("unbiased", "yes_no")}
    assert replies == {(True, "yes"), (False, "no")}
    assert all(q.reply == q.answer for _, q in asked("unbiased", "color", 6))


def test_totals_follow_the_range_of_the_world():
    world = World(min_objects=3, max_objects=4)
    totals = [
        q for i in range(60) for _, q in [question_at(world, "count", 1, i)] if " shapes are" in q.question
    ]
    assert {q.candidates for q in totals if q.cloze.startswith("the number of shapes")} == {("three", "four")}


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="colour"):
        question_at(WORLDS["biased"], "colour", 0, 0)
