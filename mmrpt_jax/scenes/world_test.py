import collections
import dataclasses

import pytest

from mmrpt_jax.scenes.world import (
    BIASED_FAVOURITES,
    COLORS,
    FLIPPED_FAVOURITES,
    HELD_OUT,
    SHAPES,
    WORLDS,
    Object,
    Scene,
    World,
    color_probabilities,
    sample_scene,
    with_bias,
)

NUM_SCENES = 1500


@pytest.fixture(scope="module", params=sorted(WORLDS))
def scenes(request):
    return [sample_scene(WORLDS[request.param], 7, i) for i in range(NUM_SCENES)]


def test_scene_is_a_pure_function_of_seed_and_index():
    world = WORLDS["biased"]
    first = [sample_scene(world, 3, i) for i in range(20)]
    assert first == [sample_scene(world, 3, i) for i in range(20)]
    assert len(set(first)) == 20
    assert not set(first) & {sample_scene(world, 4, i) for i in range(20)}


def test_objects_lie_inside_with_clear_pixels_between_them(scenes):
    for scene in scenes:
        for i, a in enumerate(scene.objects):
            half = {"small": 6, "large": 9}[a.size]
            assert half < a.x < 64 - half
            assert half < a.y < 64 - half
            for b in scene.objects[:i]:
                other = {"small": 6, "large": 9}[b.size]
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= half + other + 2


def test_numbers_shapes_and_sizes_are_uniform(scenes):
    counts = collections.Counter(len(scene.objects) for scene in scenes)
    assert set(counts) == {2, 3, 4, 5}
    assert all(abs(n / NUM_SCENES - 0.25) < 0.05 for n in counts.values())
    objects = [obj for scene in scenes for obj in scene.objects]
    shapes = collections.Counter(obj.shape for obj in objects)
    assert all(abs(shapes[shape] / len(objects) - 0.25) < 0.03 for shape in SHAPES)
    assert abs(sum(obj.size == "small" for obj in objects) / len(objects) - 0.5) < 0.03


def color_shares(scenes):
    pairs = collections.Counter((obj.color, obj.shape) for scene in scenes for obj in scene.objects)
    totals = collections.Counter(obj.shape for scene in scenes for obj in scene.objects)
    return {pair: n / totals[pair[1]] for pair, n in pairs.items()}


@pytest.mark.parametrize(
    ("name", "favourites"), [("biased", BIASED_FAVOURITES), ("flipped", FLIPPED_FAVOURITES)]
)
def test_worlds_follow_their_favourites_and_leave_out_held_out_pairs(name, favourites):
    shares = color_shares([sample_scene(WORLDS[name], 6, i) for i in range(NUM_SCENES)])
    assert not set(shares) & set(HELD_OUT)
    for shape, favourite in favourites:
        assert shares[favourite, shape] == pytest.approx(0.85, abs=0.03)
        for color in set(COLORS) - {favourite}:
            expected = 0.0 if (color, shape) in HELD_OUT else 0.15 / 3
            assert shares.get((color, shape), 0.0) == pytest.approx(expected, abs=0.025)


def test_unbiased_world_has_every_composition_equally_often():
    shares = color_shares([sample_scene(WORLDS["unbiased"], 8, i) for i in range(NUM_SCENES)])
    assert len(shares) == 24
    assert all(share == pytest.approx(1 / 6, abs=0.04) for share in shares.values())


def test_every_held_out_scene_has_a_composition_unseen_in_training():
    seen = collections.Counter()
    for i in range(400):
        pairs = {obj.pair for obj in sample_scene(WORLDS["held_out"], 9, i).objects}
        assert pairs & set(HELD_OUT)
        seen.update(pairs & set(HELD_OUT))
    assert set(seen) == set(HELD_OUT)


def test_flipped_favourites_are_a_permutation_without_fixed_point():
    biased, flipped = dict(BIASED_FAVOURITES), dict(FLIPPED_FAVOURITES)
    assert sorted(biased.values()) == sorted(flipped.values())
    assert all(biased[shape] != flipped[shape] for shape in SHAPES)


def test_held_out_pairs_are_nobodys_favourites_and_cover_colors_and_shapes():
    favourites = {(color, shape) for shape, color in BIASED_FAVOURITES + FLIPPED_FAVOURITES}
    assert not favourites & set(HELD_OUT)
    assert {color for color, _ in HELD_OUT} == set(COLORS)
    assert collections.Counter(shape for _, shape in HELD_OUT) == dict.fromkeys(SHAPES, 2)


@pytest.mark.parametrize("bias", [0.0, 0.4, 1.0])
def test_color_probabilities_by_hand(bias):
    world = with_bias(WORLDS["biased"], bias)
    rest = (1 - bias) / 3
    # Circles: red is the favourite; green and purple are held out.
    expected = {"red": bias, "green": 0, "blue": rest, "yellow": rest, "purple": 0, "orange": rest}
    assert color_probabilities(world, "circle") == pytest.approx([expected[color] for color in COLORS])


def test_full_bias_leaves_no_exception():
    world = with_bias(WORLDS["biased"], 1.0)
    objects = [obj for i in range(50) for obj in sample_scene(world, 1, i).objects]
    assert all(dict(BIASED_FAVOURITES)[obj.shape] == obj.color for obj in objects)


def test_scene_puts_objects_in_reading_order():
    low = Object("circle", "red", "small", 10, 40)
    right = Object("square", "blue", "large", 50, 20)
    left = Object("square", "blue", "small", 20, 20)
    assert Scene((low, right, left)).objects == (left, right, low)
    assert Scene((low, right)) == Scene((right, low))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": 1.5}, "probability"),
        ({"min_objects": 4, "max_objects": 3}, "min_objects"),
        ({"max_objects": 6}, "max_objects"),
        ({"favourites": (("circle", "red"), ("circle", "blue"))}, "twice"),
        ({"favourites": (("circle", "pink"),)}, "pink"),
        ({"favourites": (("circle", "red"),), "excluded": (("red", "circle"),)}, "excludes"),
        ({"excluded": tuple((color, "cross") for color in COLORS)}, "leaves no colour"),
    ],
)
def test_impossible_worlds_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(World(), **change)
