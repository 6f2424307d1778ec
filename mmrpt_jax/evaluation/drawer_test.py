import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.evaluation.drawer import Drawer
from mmrpt_jax.models.autoencoder import PatchAutoencoder, decode_tokens
from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_config import LatentConfig
from mmrpt_jax.models.unified_test import CONFIG as LARGER
from mmrpt_jax.models.vlm import PromptTokens
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.sampling import FlowSampler, Guidance
from mmrpt_jax.training.compilations import compilations

# The least that draws: four tokens of 8 x 8 pixels, two steps, at t = 1 and 1/2.
DECODER = dataclasses.replace(LARGER.vlm.decoder, layers=1)
CONFIG = dataclasses.replace(
    LARGER,
    vlm=dataclasses.replace(LARGER.vlm, decoder=DECODER),
    latent=LatentConfig(channels=48, downsample=4, height=4, width=4),
)
CODER = PatchAutoencoder(4)
SAMPLER = FlowSampler(steps=2, kind="ode", guidance=Guidance(text=1.5, renorm="none"))
TEXTS = ["abc", "de", "abc"]
B, G, P = 2, 3, 5


def encode(texts):
    """A begin token, and a token for each letter."""
    rows = [[2, *(ord(letter) - ord("a") + 3 for letter in text)] for text in texts]
    ids = np.array([row + [0] * (P - len(row)) for row in rows])
    return PromptTokens(ids, ids > 0, np.zeros(ids.shape, bool))


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


@pytest.fixture(scope="module")
def drawer():
    """Two texts a batch: three texts leave the last batch half full."""
    return Drawer(CONFIG, SAMPLER, CODER, encode, group_size=G, batch_size=B)


@pytest.fixture(scope="module")
def drawn(drawer, params):
    return drawer.draw(params, TEXTS, seed=5)


def test_drawings_by_hand(params, drawn):
    @jax.jit
    def flow(params, latents, time, prompt):
        state = encode_prompt(CONFIG, params, None, prompt)
        return velocity(CONFIG, params, state, latents, jnp.full(latents.shape[:2], time))

    assert drawn.shape == (3, G, 16, 16, 3) and drawn.dtype == np.uint8
    for n, text in enumerate(TEXTS):
        batch, row = [(0, 0), (0, 1), (1, 0)][n]
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), batch), 0)
        x = jax.random.normal(key, (B, G, 4, 192))[row][None]
        for time in (1.0, 0.5):
            plain, textless = (flow(params, x, time, encode([words])) for words in (text, ""))
            x = x - 0.5 * (textless + 1.5 * (plain - textless))
        expected = np.asarray(decode_tokens(CODER, x, CONFIG.latent))[0]
        # Rounding to bytes may go either way.
        assert np.abs(drawn[n].astype(int) - expected).max() <= 1
        assert expected.std() > 10


def test_other_texts_do_not_matter(drawer, params, drawn):
    np.testing.assert_array_equal(drawer.draw(params, TEXTS[:1], seed=5), drawn[:1])
    np.testing.assert_array_equal(drawer.draw(params, ["ed", "de", "ed", "ab"], seed=5)[1], drawn[1])
    assert drawer.draw(params, [], seed=5).shape == (0, G, 16, 16, 3)


def test_places_members_and_seeds_have_noise_of_their_own(drawer, params, drawn):
    other = drawer.draw(params, TEXTS[:1], seed=6)
    images = [*drawn[0], *drawn[2], *other[0]]
    assert len({image.tobytes() for image in images}) == 3 * G


def test_the_program_is_compiled_once(drawer, params, drawn):
    before, others = compilations(), jax.tree.map(np.negative, params)
    assert not np.array_equal(drawer.draw(others, TEXTS, seed=7), drawn)
    drawer.draw(params, TEXTS[:1], seed=8)
    assert compilations() == before


def test_without_guidance_no_prompt_is_without_text(params, drawn):
    asked = []

    def watched(texts):
        asked.extend(texts)
        return encode(texts)

    plain = dataclasses.replace(SAMPLER, guidance=Guidance())
    images = Drawer(CONFIG, plain, CODER, watched, group_size=G, batch_size=B).draw(params, TEXTS, seed=5)
    assert asked == ["abc", "de", "abc", "abc"]
    assert not np.array_equal(images, drawn)
