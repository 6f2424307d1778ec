import jax
import numpy as np
import optax
import pytest

from mmrpt_jax.data.prompts import Wording, encode_branches, encode_prompts
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.training.state import new_state
from mmrpt_jax.training.supervised import SupervisedBatch, hide_images, make_supervised_step

WORDS = ["a", "red", "circle", "is", "above", "the", "blue", "square"]
BLIND = np.arange(8) >= 6
# An update of size 1 against the gradient: what parameters lose is the gradient.
DESCENT = optax.sgd(1.0)


@pytest.fixture(scope="module")
def batch(tiny_tokenizer, tiny_images):
    """Eight prompts with two texts each, of 1 to 8 words; the last two prompts are blind."""
    texts = [[" ".join(WORDS[: i + 1]) + EOS, " ".join(WORDS[i:]) + EOS] for i in range(8)]
    return SupervisedBatch(
        tiny_images,
        encode_prompts(tiny_tokenizer, [Wording().caption] * 8, image_tokens=4, lengths=(16,)),
        encode_branches(tiny_tokenizer, texts, lengths=(12,)),
        BLIND,
    )


@pytest.fixture(scope="module")
def update(tiny_model, tiny_params):
    """(batch, options) -> (gradients, metrics) of one step from the tiny parameters."""

    def run(batch, params=tiny_params, **options):
        step = jax.jit(make_supervised_step(tiny_model, DESCENT, **options))
        state, metrics = step(new_state(params, DESCENT), batch)
        assert int(state.step) == 1
        return jax.tree.map(lambda old, new: np.asarray(old) - new, params, state.params), metrics

    return run


@pytest.fixture(scope="module")
def reference(update, batch):
    return update(batch)


def assert_same(found, expected):
    (gradients, metrics), (expected_gradients, expected_metrics) = found, expected
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradients, expected_gradients
    )
    assert metrics.keys() == expected_metrics.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected_metrics[name], rtol=1e-5)


def test_prompts_of_any_number_of_images_score_as_each_alone(
    tiny_forward, tiny_params, tiny_processor, tiny_images
):
    pictures = [tiny_images[0, 0]], [], [tiny_images[1, 0], tiny_images[2, 0]]

    def scored(*rows):
        prompts = [Wording().caption_prompt(len(pictures[row])) for row in rows]
        inputs = tiny_processor.inputs(prompts, [tiny_processor.view(*pictures[row]) for row in rows])
        texts = [[" ".join(WORDS[row:]) + EOS] for row in rows]
        branches = encode_branches(tiny_processor.tokenizer, texts, lengths=(12,))
        logprobs = tiny_forward(tiny_params, *inputs, branches).logprobs
        return [np.asarray(row)[valid] for row, valid in zip(logprobs, branches.valid, strict=True)]

    together, alone = scored(0, 1, 2), [*scored(0, 1), *scored(2)]
    for row, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_loss_is_the_mean_over_all_tokens(tiny_forward, tiny_params, batch, reference):
    # What a blind row may see, by hand: everything but its image.
    visible = batch.prompt.valid & ~(batch.prompt.image_slots & BLIND[:, None])
    out = tiny_forward(tiny_params, batch.images, batch.prompt._replace(valid=visible), batch.branches)
    tokens = batch.branches.valid
    _, metrics = reference
    np.testing.assert_allclose(metrics["loss"], -np.asarray(out.logprobs)[tokens].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], np.asarray(out.entropy)[tokens].mean(), rtol=1e-5)


def test_gradient_norm_is_that_of_the_gradients(reference):
    gradients, metrics = reference
    squares = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(metrics["gradient_norm"], squares**0.5, rtol=1e-3)


def test_neither_the_split_nor_padding_matters(update, batch, reference):
    def longer(tokens, amount):
        return type(tokens)(*(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, amount)]) for x in tokens))

    padded = batch._replace(prompt=longer(batch.prompt, 7), branches=longer(batch.branches, 5))
    assert_same(update(padded, micro_batches=4), reference)


def test_devices_do_not_matter(tiny_model, tiny_params, update, batch, reference):
    mesh = make_mesh(2, 4, 1)
    params = jax.tree.map(
        lambda x, like: jax.device_put(x, like.sharding), tiny_params, abstract_parameters(tiny_model, mesh)
    )
    placed = jax.device_put(batch, batch_sharding(mesh))
    assert_same(update(placed, params, micro_batches=2), reference)


def test_hiding_the_image_changes_the_loss_of_blind_rows_only(tiny_forward, tiny_params, batch):
    def logprobs(images, blind):
        prompt = hide_images(batch.prompt, blind)
        return np.asarray(tiny_forward(tiny_params, images, prompt, batch.branches).logprobs)

    seeing, some = logprobs(batch.images, np.zeros(8, bool)), logprobs(batch.images, BLIND)
    changed = (np.abs(seeing - some) > 1e-4)[..., 0].any(axis=1)
    np.testing.assert_array_equal(changed, BLIND)
    # A blind row does not depend on its image, a seeing one does.
    swapped = logprobs(batch.images[::-1], BLIND)
    np.testing.assert_array_equal((np.abs(swapped - some) > 1e-4)[..., 0].any(axis=1), ~BLIND)
    assert hide_images(batch.prompt, BLIND).ids is batch.prompt.ids
