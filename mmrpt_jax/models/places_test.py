import dataclasses

import jax.numpy as jnp
import numpy as np

from mmrpt_jax.models.config import RotaryConfig
from mmrpt_jax.models.places import PromptTokens, branch_places, place_images, prompt_places
from mmrpt_jax.models.vision import VisualTokens
from mmrpt_jax.models.vlm_test import CONFIG, DECODER

# Visual tokens of an image of 2 x 3 and one of 1 x 2, and padding.
GRID = VisualTokens(
    None,
    *(
        np.array([row])
        for row in ([0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 2, 0, 1, 2, 0, 1, 0], [0] * 6 + [1, 1, -1])
    ),
)


def prompt_of(words):
    """A prompt from a string: "." is a word, "#" a visual token, "-" padding."""
    slots = np.array([[word == "#" for word in words]])
    return PromptTokens(np.zeros(slots.shape, int), np.array([[word != "-" for word in words]]), slots)


def places(words, grid=GRID, **options):
    return prompt_places(dataclasses.replace(CONFIG, **options), prompt_of(words), grid)


def test_grid_positions():
    decoder = dataclasses.replace(DECODER, rope=RotaryConfig(sections=(2, 1, 1)))
    found = places("..######.##.-", decoder=decoder, image_positions="grid")
    # The first image begins at 2 and is 3 wide; what follows stands at 5. The second begins at 6 and is 2 wide.
    expected = [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 6, 8],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 8],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8],
    ]
    np.testing.assert_array_equal(found.positions[0, 0, :12].T, expected)


def test_marks_are_part_of_their_image():
    found = places(
        "..######..##..", image_positions="shared", image_attention="bidirectional", image_marks=True
    )
    # One word, then an image with the token before and behind it, at once the next one, one word.
    np.testing.assert_array_equal(found.positions[0, 0], [0, *[1] * 8, *[2] * 4, 3])
    np.testing.assert_array_equal(found.order[0, 0], [0, *[1] * 8, *[9] * 4, 13])


def test_text_without_images_is_a_sequence():
    for options in ({"image_positions": "shared"}, {"image_attention": "bidirectional"}):
        found = places("....-", None, **options)
        np.testing.assert_array_equal(found.positions[0, 0], np.arange(5))
        np.testing.assert_array_equal(found.order[0, 0], np.arange(5))


def test_local_layers_count_tokens_not_positions():
    decoder = dataclasses.replace(DECODER, local_layers=(True, False), local_reach=3)
    config = dataclasses.replace(CONFIG, decoder=decoder, image_positions="shared")
    prompt = prompt_of("..######.##.-")
    found = prompt_places(config, prompt, GRID)
    np.testing.assert_array_equal(found.places[0, 0], np.arange(13))
    behind = branch_places(config, np.array([6]), prompt.valid, np.ones((1, 2, 3), bool))
    np.testing.assert_array_equal(behind.positions[0], [[6, 7, 8]] * 2)
    np.testing.assert_array_equal(behind.places[0], [[12, 13, 14]] * 2)
    assert prompt_places(CONFIG, prompt, GRID).places is None


def test_place_images_fills_slots_in_order():
    x = -np.arange(2.0 * 7).reshape(2, 7, 1)
    features = np.array([[10.0, 11, 12, 13], [20, 21, 22, 23]])[..., None]
    slots = np.array([[0, 1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0]], bool)
    placed = place_images(jnp.asarray(x), jnp.asarray(features), jnp.asarray(slots))
    expected = [[0, 10, 11, -3, -4, 12, 13], [20, 21, 22, 23, -11, -12, -13]]
    np.testing.assert_array_equal(placed[..., 0], expected)
