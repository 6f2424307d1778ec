import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.rewards.semantic_image import (
    SELF_REWARDS,
    image_text_cosine,
    make_image_text_cosine,
    prompt_likelihood,
    yes_probability,
)


def test_prompt_likelihood_is_the_geometric_mean_of_probabilities():
    logprobs = jnp.log(jnp.array([[0.5, 0.125, 0.9], [1.0, 1.0, 1.0], [0.2, 0.2, 0.2]]))
    mask = jnp.array([[True, True, False], [True, True, True], [False, False, False]])
    # √(1/2 · 1/8) = 1/4; nothing is likelier than certain; an empty prompt earns nothing.
    np.testing.assert_allclose(jax.jit(prompt_likelihood)(logprobs, mask), [0.25, 1.0, 0.0], rtol=1e-6)


def test_prompt_likelihood_does_not_fall_with_length_and_ignores_what_is_masked():
    short = prompt_likelihood(jnp.full((2,), -1.0), jnp.ones(2, bool))
    long = prompt_likelihood(jnp.full((50,), -1.0), jnp.ones(50, bool))
    np.testing.assert_allclose([short, long], np.exp(-1.0), rtol=1e-6)
    padded = prompt_likelihood(jnp.array([-1.0, -jnp.inf]), jnp.array([True, False]))
    np.testing.assert_allclose(padded, np.exp(-1.0), rtol=1e-6)


def test_yes_probability_by_hand():
    yes, no = jnp.log(jnp.array([0.3, 0.2, 1e-30])), jnp.log(jnp.array([0.1, 0.2, 1e-10]))
    np.testing.assert_allclose(yes_probability(yes, no), [0.75, 0.5, 0.0], atol=1e-6)


class Towers:
    """Images are embedded by their mean colour, texts by what they name."""

    def encode_images(self, images):
        return np.array([np.asarray(image, float).mean(axis=(0, 1)) for image in images])

    def encode_texts(self, texts):
        return np.array([[text == "red", text == "green", 2 * (text == "blue")] for text in texts], float)


IMAGES = [np.full((2, 2, 3), color, np.uint8) for color in ([10, 0, 0], [0, 3, 4])]


def test_cosine_by_hand():
    np.testing.assert_allclose(image_text_cosine(Towers(), IMAGES, ["red", "blue"]), [1.0, 0.8], rtol=1e-6)
    reward = make_image_text_cosine(Towers())
    assert (reward.kind, reward.tasks) == ("external", ("generation",))
    values = reward.fn(prompts=["red", "blue"], completions=["", ""], images=IMAGES, task=["generation"] * 2)
    np.testing.assert_allclose(values, [1.0, 0.8], rtol=1e-6)


def test_without_an_encoder_one_sentence_says_what_to_do():
    for attempt in (lambda: image_text_cosine(None, IMAGES, ["red"]), lambda: make_image_text_cosine(None)):
        with pytest.raises(ValueError, match="needs an image-text encoder and got none: pass one, or use"):
            attempt()


def test_useless_embeddings_are_refused():
    with pytest.raises(ValueError, match="text embeddings of shape"):
        image_text_cosine(Towers(), IMAGES, ["red"])
    with pytest.raises(ValueError, match="text embeddings"):
        image_text_cosine(Towers(), IMAGES, ["red", "pink"])


@pytest.mark.parametrize("reward", SELF_REWARDS, ids=lambda reward: reward.name)
def test_self_rewards_read_their_column(reward):
    assert (reward.kind, reward.tasks) == ("self", ("generation",))
    assert reward.fn(prompts=["p"] * 3, **{reward.name: [0.0, None, 1.0]}) == [0.0, None, 1.0]
    with pytest.raises(ValueError, match=rf"{reward.name}\[1\] is -0.5, outside"):
        reward.fn(**{reward.name: [0.5, -0.5]})
