"""Prompts are read by a grammar of this file's own and checked against their scenes by brute force."""

import dataclasses
import re
from collections import Counter

import pytest

from mmrpt_jax.scenes.captions import describe
from mmrpt_jax.scenes.clauses import TAGS, Clause, Clauses, ScenePrompt, stands, strict
from mmrpt_jax.scenes.prompts import prompt_at, prompts_of_scene, scene_for, tags_of
from mmrpt_jax.scenes.render import render
from mmrpt_jax.scenes.splits import split_seed
from mmrpt_jax.scenes.verifier import read
from mmrpt_jax.scenes.world import COLORS, HELD_OUT, SHAPES, WORLDS, Object, Scene, sample_scene

BIASED, UNBIASED, HELD = (WORLDS[name] for name in ("biased", "unbiased", "held_out"))
NUMBER = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
THING = re.compile(
    rf"\b(a|an|two|three|four) (?:({'|'.join(COLORS)}) )?(circle|square|triangle|cross)(?:e?s)?\b"
)
BETWEEN = re.compile(r"(left of|right of|above|below)( it)?\b")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def read_prompt(text):
    """(number, colour, shape) of everything that a prompt names, and (first, relation, second) or `None`."""
    if match := re.fullmatch(r"the number of (circle|square|triangle|cross)(?:e?s)? is (\w+) \.", text):
        return [(NUMBER[match[2]], None, match[1])], None
    things = [(NUMBER[n], color or None, kind) for n, color, kind in THING.findall(text)]
    match = BETWEEN.search(text)
    if not match:
        return things, None
    word = match[1].split()[0]
    first, second = (1, 0) if match[2] else (0, 1)
    return things, (things[first], word, things[second])


def prompts(world, tag, count=60, seed=3):
    return [prompt_at(world, tag, seed, i) for i in range(count)]


@pytest.mark.parametrize("tag", TAGS)
def test_text_says_what_the_clauses_say(tag):
    for prompt in prompts(UNBIASED, tag):
        assert re.fullmatch(r"[a-z]+( [a-z]+)* \.", prompt.text)
        things, relation = read_prompt(prompt.text)
        include = prompt.clauses.include
        assert Counter(things) == Counter((c.count, c.color, c.shape) for c in include), prompt
        placed = [c for c in include if c.relation]
        if relation is None:
            assert not placed, prompt
        else:
            (clause,) = placed
            word, other = clause.relation
            ends = clause.shape, include[other].shape
            said = (relation[0][2], relation[1], relation[2][2])
            assert said in [(ends[0], word, ends[1]), (ends[1], INVERSE[word], ends[0])], prompt


def test_every_tag_demands_what_genevals_does():
    for tag, sizes in {
        "single_object": {(1, 1, False, False)},
        "two_object": {(2, 1, False, False)},
        "counting": {(1, n, False, False) for n in (2, 3, 4)},
        "colors": {(1, 1, True, False)},
        "position": {(2, 1, False, True)},
        "color_attr": {(2, 1, True, False)},
    }.items():
        found = {
            (len(p.clauses.include), c.count, bool(c.color), any(d.relation for d in p.clauses.include))
            for p in prompts(UNBIASED, tag)
            for c in p.clauses.include
        }
        assert found == sizes
        for prompt in prompts(UNBIASED, tag, 12):
            expected = [(c.shape, c.count + 1) for c in prompt.clauses.include] if tag == "counting" else []
            assert [(c.shape, c.count) for c in prompt.clauses.exclude] == expected
    for prompt in prompts(UNBIASED, "color_attr"):
        assert len({clause.color for clause in prompt.clauses.include}) == 2


@pytest.mark.parametrize(
    ("tag", "number"),
    # 4 shapes; 4·3 pairs of them; 4·3 numbers; 4·4 allowed colours; 12 pairs, 4 relations.
    [("single_object", 4), ("two_object", 12), ("counting", 12), ("colors", 16), ("position", 48)],
)
def test_every_block_of_indices_makes_every_demand_once(tag, number):
    demands = [prompt.clauses for prompt in prompts(BIASED, tag, 2 * number)]
    assert len(set(demands[:number])) == len(set(demands[number:])) == number
    assert set(demands[:number]) == set(demands[number:])


@pytest.mark.parametrize("tag", TAGS)
def test_prompts_are_pure_functions_with_varied_wordings(tag):
    assert prompts(BIASED, tag) == prompts(BIASED, tag)
    assert prompts(BIASED, tag, seed=4) != prompts(BIASED, tag)
    patterns = {THING.sub("THING", p.text) for p in prompts(BIASED, tag, 200)}
    assert len(patterns) >= 12


def pairs_named(prompt):
    return {(clause.color, clause.shape) for clause in prompt.clauses.include if clause.color}


@pytest.mark.parametrize("world", ["biased", "flipped"])
def test_held_out_compositions_are_never_named_or_drawn_in_training(world):
    for tag in tags_of(WORLDS[world]):
        for i in range(150):
            prompt = prompt_at(WORLDS[world], tag, split_seed("train"), i)
            scene = scene_for(prompt, WORLDS[world], split_seed("train"), i)
            shown = {obj.pair for obj in scene.objects}
            assert not (pairs_named(prompt) | shown) & set(HELD_OUT)
            for true in prompts_of_scene(scene, split_seed("train"), i):
                assert not pairs_named(true) & set(HELD_OUT)


def test_held_out_prompts_name_nothing_but_held_out_compositions():
    assert tags_of(HELD) == ("colors", "color_attr")
    named = Counter()
    for tag in tags_of(HELD):
        for prompt in prompts(HELD, tag, 100):
            assert len(pairs_named(prompt)) == len(prompt.clauses.include)
            named.update(pairs_named(prompt))
            shown = {obj.pair for obj in scene_for(prompt, HELD, 3, 0).objects}
            assert shown == pairs_named(prompt)
    assert set(named) == set(HELD_OUT)
    with pytest.raises(ValueError, match="colors"):
        prompt_at(HELD, "counting", 0, 0)


@pytest.mark.parametrize("tag", TAGS)
def test_scenes_show_exactly_what_is_asked(tag):
    for i, prompt in enumerate(prompts(BIASED, tag, 40)):
        scene = scene_for(prompt, BIASED, 5, i)
        things, relation = read_prompt(prompt.text)
        assert len(scene.objects) == sum(number for number, _, _ in things)
        for number, color, kind in things:
            assert sum(o.shape == kind and color in (None, o.color) for o in scene.objects) == number
        if relation:
            (_, _, first), word, (_, _, second) = relation
            a, b = ([o for o in scene.objects if o.shape == kind] for kind in (first, second))
            gap = {"left": b[0].x - a[0].x, "right": a[0].x - b[0].x}
            gap |= {"above": b[0].y - a[0].y, "below": a[0].y - b[0].y}
            # Half the distance, plus what GenEval takes off.
            assert gap[word] > 0.5 * ((a[0].x - b[0].x) ** 2 + (a[0].y - b[0].y) ** 2) ** 0.5 + 2
        assert read(render(scene)) == scene
        assert scene == scene_for(prompt, BIASED, 5, i)
        assert scene != scene_for(prompt, BIASED, 5, i + 1)


def test_the_bias_shows_where_no_color_is_named():
    scenes = [scene_for(p, BIASED, 5, i) for i, p in enumerate(prompts(BIASED, "single_object", 400))]
    favourite = {"circle": "red", "square": "blue", "triangle": "green", "cross": "yellow"}
    share = sum(s.objects[0].color == favourite[s.objects[0].shape] for s in scenes) / 400
    assert share == pytest.approx(0.85, abs=0.06)


def test_impossible_scenes_are_refused():
    green_circle = ScenePrompt("…", "colors", Clauses((Clause("circle", color="green"),)))
    with pytest.raises(ValueError, match="excludes"):
        scene_for(green_circle, BIASED, 0, 0)
    with pytest.raises(ValueError, match="6 objects"):
        scene_for(ScenePrompt("…", "counting", Clauses((Clause("circle", 6),))), BIASED, 0, 0)
    contradiction = Clauses((Clause("circle"),), exclude=(Clause("circle"),))
    with pytest.raises(RuntimeError, match="No scene"):
        scene_for(ScenePrompt("…", "single_object", contradiction), BIASED, 0, 0)


@pytest.mark.parametrize("tag", TAGS)
def test_a_scene_made_for_a_prompt_has_a_prompt_of_that_tag(tag):
    for i, prompt in enumerate(prompts(UNBIASED, tag, 30)):
        scene = scene_for(prompt, UNBIASED, 6, i)
        found = prompts_of_scene(scene, 6, i)
        assert tag in [true.tag for true in found]
        for true in found:
            things, relation = read_prompt(true.text)
            assert sum(number for number, _, _ in things) == len(scene.objects)
            for number, color, kind in things:
                assert sum(o.shape == kind and color in (None, o.color) for o in scene.objects) == number
            if relation:
                (_, _, first), word, (_, _, second) = relation
                a, b = (next(o for o in scene.objects if o.shape == kind) for kind in (first, second))
                assert stands(a, word, b)


def test_prompts_of_crowded_scenes_count_exactly_what_they_name():
    tags = Counter()
    for i in range(150):
        scene = sample_scene(UNBIASED, 7, i)
        found = prompts_of_scene(scene, 7, i, complete=False)
        tags.update(prompt.tag for prompt in found)
        assert [prompt.tag for prompt in found] == sorted({p.tag for p in found}, key=TAGS.index)
        for prompt in found:
            for number, color, kind in read_prompt(prompt.text)[0]:
                assert sum(o.shape == kind for o in scene.objects) == number
                assert sum(o.shape == kind and color in (None, o.color) for o in scene.objects) == number
            assert strict(scene.objects, prompt.clauses, exact=True)
    assert set(tags) == set(TAGS)


def test_scenes_that_suit_no_tag_have_no_prompt():
    alike = Scene(tuple(Object("circle", "red", "small", 8 + 12 * i, 10 + 9 * i) for i in range(5)))
    assert prompts_of_scene(alike, 0, 0) == ()
    assert prompts_of_scene(Scene(()), 0, 0) == ()


def test_pictures_do_not_pass_for_other_prompts():
    """Ground truth pictures against the prompts of others: where the demands differ, next to nothing passes."""
    passed = {True: [], False: []}
    for tag in TAGS:
        asked = prompts(UNBIASED, tag, 24)
        shown = [read(render(scene_for(prompt, UNBIASED, 8, i))) for i, prompt in enumerate(asked)]
        for i, scene in enumerate(shown):
            for j, prompt in enumerate(asked):
                same = set(prompt.clauses.include) == set(asked[i].clauses.include)
                if tag != "position" or i == j:
                    passed[same].append(strict(scene.objects, prompt.clauses))
        if tag == "position":
            others = [strict(shown[i].objects, asked[(i + 5) % 24].clauses) for i in range(24)]
            assert sum(others) / 24 < 0.1
    assert set(passed[True]) == {1.0}
    assert set(passed[False]) == {0.0}


def test_words_are_those_of_captions_and_three_more():
    captions = " ".join(describe(sample_scene(UNBIASED, 9, i), 9, i).text for i in range(1000))
    words = {word for tag in TAGS for prompt in prompts(UNBIASED, tag, 300) for word in prompt.text.split()}
    assert words - set(captions.split()) == {"draw", "image", "show"}


def test_worlds_with_single_objects_have_prompts_for_them():
    world = dataclasses.replace(UNBIASED, max_objects=1, min_objects=1)
    tags = {p.tag for i in range(5) for p in prompts_of_scene(sample_scene(world, 1, i), 1, i)}
    assert tags == {"single_object", "colors"}
    assert {o.shape for i in range(30) for o in sample_scene(world, 1, i).objects} == set(SHAPES)
