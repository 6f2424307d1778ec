import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.decoder import Stack
from mmrpt_jax.models.framed import run_framed
from mmrpt_jax.models.tokens import Context, Tokens
from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_test import CONFIG, make_inputs, parameters

DECODER = CONFIG.vlm.decoder
B, G, S, I, M = 2, 2, 3, 4, 2
BEFORE = Context(np.zeros((B, S), int), np.ones((B, S), bool))


@pytest.fixture(scope="module")
def params():
    return parameters("mot")


@pytest.fixture(scope="module")
def scene():
    """Latents, marks, where they stand, and keys and values of what stands before."""
    rng = np.random.default_rng(0)
    latents, marks = (rng.normal(size=(B, G, n, DECODER.width)).astype(np.float32) for n in (I, M))
    before = rng.normal(size=(2, DECODER.layers, B, DECODER.kv_heads, S, DECODER.head_dim)).astype(np.float32)
    return latents, marks, np.array([[3, 5], [4, 4]]), before


@jax.jit
def framed(drawing, understanding, latents, marks, place, before):
    return run_framed(DECODER, drawing, understanding, latents, marks, place, [tuple(before)], [BEFORE])


@jax.jit
def together(stack, latents, marks, place, before):
    """One stack over the start mark, the latents and the end mark."""
    x = jnp.concatenate([marks[:, :, :1], latents, marks[:, :, 1:]], axis=2)
    places = jnp.repeat(place[..., None], I + M, axis=2)
    tokens = Tokens(places, places, np.ones(places.shape, bool))
    return Stack(DECODER).apply({"params": stack}, x, [tuple(before)], [BEFORE], tokens)[0][:, :, 1:-1]


def test_with_one_set_of_weights_it_is_one_stack(params, scene):
    stack = params["decoder"]
    np.testing.assert_allclose(framed(stack, stack, *scene), together(stack, *scene), rtol=1e-4, atol=1e-5)


def test_marks_run_through_the_weights_that_understand(params, scene):
    plain = framed(params["generation"], params["decoder"], *scene)
    swapped = framed(params["generation"], params["generation"], *scene)
    assert np.abs(plain - swapped).max() > 1e-2


def test_marks_matter_to_what_is_drawn(params):
    """And the gradient of drawing reaches the experts that understand, and no others than before."""
    images, prompt, _, latents, times = make_inputs()
    marked = dataclasses.replace(CONFIG, latent=dataclasses.replace(CONFIG.latent, image_marks=(5, 6)))
    state = jax.jit(encode_prompt, static_argnums=0)(CONFIG, params, images, prompt)

    def loss(params, config):
        return (velocity(config, params, state, latents, times) ** 2).sum()

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (plain, alone), (found, gradient) = run(params, CONFIG), run(params, marked)
    assert abs(float(found - plain)) > 1e-2
    largest = lambda tree: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert largest(alone["decoder"]) == 0.0 and largest(alone["embedding"]) == 0.0
    assert largest(gradient["decoder"]["layers"]["mlp"]) > 0.0
    assert set(np.nonzero(np.abs(gradient["embedding"]).max(axis=1))[0]) == {5, 6}
    assert largest(gradient["decoder"]["final_norm"]) == 0.0
