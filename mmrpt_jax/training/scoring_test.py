from typing import NamedTuple

import jax
import numpy as np
import pytest

from mmrpt_jax.data.prompts import Wording, encode_branches, encode_prompts
from mmrpt_jax.models.vlm import VLM
from mmrpt_jax.training import scoring
from mmrpt_jax.training.scoring import make_dependency_scorer, select_layers

CAPTIONS = ["a red circle is above the blue square .", "two green triangles", "the circle", "blue"]


@pytest.fixture(scope="module")
def inputs(tiny_tokenizer, tiny_images):
    """Images, prompts and captions of different lengths."""
    prompt = encode_prompts(tiny_tokenizer, [Wording().caption] * 4, image_tokens=4, lengths=(16,))
    captions = encode_branches(tiny_tokenizer, [[caption] for caption in CAPTIONS], lengths=(16,))
    return tiny_images[:4], prompt, captions


def third_patch(prompt):
    """bool[B P]: the key of the third patch, which stands for a sink."""
    return prompt.image_slots & (np.cumsum(prompt.image_slots, axis=1) == 3)


@pytest.fixture(scope="module")
def scores(tiny_model, tiny_params, inputs):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scoring, "detect_sinks", lambda mass, patch_valid: third_patch(inputs[1]))
        return jax.device_get(jax.jit(make_dependency_scorer(tiny_model, layers=[1]))(tiny_params, *inputs))


class Masses(NamedTuple):
    """Attention mass `[B R N]` that the captions' tokens give in layer 1, and that prompt keys get `[B P N]`."""

    image: np.ndarray
    sink: np.ndarray
    instruction: np.ndarray
    received: np.ndarray


@pytest.fixture(scope="module")
def masses(tiny_params, tiny_forward, inputs):
    _, prompt, captions = inputs
    regions = [prompt.image_slots, third_patch(prompt), prompt.valid & ~prompt.image_slots]
    columns, weights = np.stack(regions, -1).astype(np.float32), captions.valid.astype(np.float32)
    out = tiny_forward(tiny_params, *inputs, regions=columns, query_weights=weights)
    return Masses(*np.moveaxis(out.mass[1, :, 0], -1, 0), np.asarray(out.received[1]))


def share(masses):
    return (masses.image / (1 - masses.instruction)).mean(-1)


def test_attention_is_the_images_share_of_image_and_caption(scores, masses):
    np.testing.assert_allclose(scores.attention[:, 0], share(masses), rtol=1e-4)
    assert 0.05 < scores.attention.mean() < 0.95


def test_a_sink_counts_on_neither_side(scores, masses):
    without = (masses.image - masses.sink) / (1 - masses.instruction - masses.sink)
    np.testing.assert_allclose(scores.sink_free[:, 0], without.mean(-1), rtol=1e-4)


def test_lift_divides_by_the_share_under_uniform_attention(scores, masses):
    # Token t sees 4 image keys and t + 1 of the caption.
    uniform = 4 / (4 + np.arange(1, 17))
    np.testing.assert_allclose(scores.lift[:, 0], share(masses) / uniform, rtol=1e-4)


def test_llr_is_the_difference_of_two_runs(scores, tiny_params, tiny_forward, inputs):
    images, prompt, captions = inputs
    blind_prompt = prompt._replace(valid=prompt.valid & ~prompt.image_slots)
    seeing = tiny_forward(tiny_params, images, prompt, captions).logprobs
    blind = tiny_forward(tiny_params, images, blind_prompt, captions).logprobs
    np.testing.assert_allclose(scores.llr, seeing - blind, atol=1e-5)
    np.testing.assert_allclose(scores.blind_logprobs, blind, atol=1e-5)
    assert np.abs(scores.llr).max() > 0.01


def test_kl_equals_the_dense_sum(scores, tiny_model, tiny_params, inputs):
    images, prompt, captions = inputs

    @jax.jit
    def logits(prompt):
        variables, model = {"params": tiny_params}, VLM(tiny_model)
        state = model.apply(variables, images, prompt, method=VLM.encode_prompt)
        hidden, _ = model.apply(variables, state, captions, method=VLM.extend)
        return hidden @ tiny_params["embedding"].T

    def probabilities(prompt):
        values = np.exp(np.asarray(logits(prompt), np.float64))
        return values / values.sum(-1, keepdims=True)

    p = probabilities(prompt)
    q = probabilities(prompt._replace(valid=prompt.valid & ~prompt.image_slots))
    np.testing.assert_allclose(scores.kl, np.sum(p * np.log(p / q), -1), atol=1e-5)
    assert (scores.kl >= -1e-6).all() and scores.kl.max() > 1e-3


def test_patches_receive_what_the_captions_tokens_give(scores, masses, inputs):
    _, prompt, captions = inputs
    slots = [np.flatnonzero(row) for row in prompt.image_slots]
    expected = [masses.received[b, slots[b]].mean(-1) for b in range(4)]
    np.testing.assert_allclose(scores.received, expected, rtol=1e-4)
    given = np.where(captions.valid[:, 0, :, None], masses.image, 0.0).sum(1).mean(-1)
    np.testing.assert_allclose(scores.received.sum(-1), given, rtol=1e-4)


def test_the_predicting_row_may_be_read(tiny_model, tiny_params, inputs, masses):
    scorer = make_dependency_scorer(tiny_model, layers=[1], query_shift=-1)
    scores = jax.jit(scorer)(tiny_params, *inputs)
    shifted = np.asarray(share(masses))[:, [0, *range(15)]]
    np.testing.assert_allclose(scores.attention[:, 0], shifted, rtol=1e-4)
    # Row t - 1 sees t tokens of the caption.
    np.testing.assert_allclose(scores.lift[:, 0, 1:], (shifted * (4 + np.arange(16)) / 4)[:, 1:], rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "fractions", "layers"),
    [(4, (0.5, 1.0), [2, 3]), (4, (0.0, 1.0), [0, 1, 2, 3]), (3, (0.4, 0.6), [1]), (1, (0.5, 1.0), [0])],
)
def test_layers_lie_between_the_depths(count, fractions, layers):
    assert select_layers(count, fractions) == layers


def test_no_layer_between_the_depths():
    with pytest.raises(ValueError, match=r"no layer of 2 lies between the depths 0\.4 and 0\.6"):
        select_layers(2, (0.4, 0.6))
