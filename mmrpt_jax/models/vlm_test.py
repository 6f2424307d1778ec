import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.config import ConnectorConfig, RotaryConfig, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.initialise import abstract_parameters
from mmrpt_jax.models.places import prompt_places
from mmrpt_jax.models.tokens import Tokens
from mmrpt_jax.models.vision import VisualTokens
from mmrpt_jax.models.vlm import VLM, BranchTokens, PromptTokens

DECODER = TransformerConfig(width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48)
TOWER = dataclasses.replace(DECODER, layers=1, rope=None)
CONFIG = VLMConfig(vocab_size=64, decoder=DECODER, vision=VisionConfig(16, 16, 8, TOWER))
# Everything that a layer can also do, each chunk and each image smaller than a sequence.
OPTIONS = dict(kv_heads=1, qk_norm=True, qkv_bias=True, query_chunk=3, remat="full", unroll=2)
VARIANT = dataclasses.replace(
    CONFIG,
    decoder=dataclasses.replace(DECODER, **OPTIONS),
    vision=dataclasses.replace(CONFIG.vision, transformer=dataclasses.replace(TOWER, query_chunk=3)),
    image_attention="bidirectional",
    image_positions="shared",
)
# What only public families do: a window that ends inside the prompt, caps, other norms, an output matrix of its own,
# images of four patches that the tower looks at through windows of two, and merges.
LOCAL = VLMConfig(
    vocab_size=64,
    decoder=dataclasses.replace(
        DECODER,
        local_layers=(True, False),
        local_reach=4,
        query_chunk=3,
        remat="keep_attention",
        local_rope=RotaryConfig(50.0),
        norm="rms_centred",
        sandwich_norms=True,
        score_softcap=3.0,
        query_scale=0.5,
        out_bias=True,
        mlp_bias=True,
    ),
    vision=VisionConfig(
        16,
        16,
        4,
        dataclasses.replace(TOWER, layers=2, local_layers=(True, False), norm="layer", gated=False),
        window=2,
        connector=ConnectorConfig(2, hidden=20, norm="layer", activation="gelu"),
        deepstack_layers=(0,),
    ),
    tied=False,
    scale_embeddings=False,
)
IMAGE, TEXT = True, False
B, G, P, R = 2, 3, 12, 5

score = jax.jit(forward, static_argnums=0, static_argnames="temperature")


def random_parameters(config):
    """Parameters that are random everywhere, scales and biases included, and need no compilation."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape) * (leaf.shape[-2] ** -0.5 if "kernel" in str(path[-1]) else 0.1)
        return (values + ("scale" in str(path[-1]))).astype(np.float32)

    return jax.tree.map_with_path(draw, abstract_parameters(config))


def make_batch():
    """Two prompts with two images each, in different places, and three branches each; all of different lengths."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (B, 2, 16, 16, 3), np.uint8)
    rows = [
        [TEXT, *[IMAGE] * 4, TEXT, *[IMAGE] * 4, TEXT, TEXT],
        [*[IMAGE] * 8, TEXT, TEXT, None, None],
    ]
    slots, valid = np.array([[x is IMAGE for x in row] for row in rows]), np.array(rows) != None  # noqa: E711
    lengths = np.array([[5, 3, 1], [2, 5, 4]])
    branches = BranchTokens(rng.integers(3, 64, (B, G, R)), np.arange(R) < lengths[..., None])
    return images, PromptTokens(rng.integers(3, 64, (B, P)), valid, slots), branches


@pytest.fixture(scope="module")
def batch():
    return make_batch()


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)


def places(config, slots):
    """Rotary position and order of each token of one row, token by token."""
    positions, order = [], []
    for i, slot in enumerate(slots):
        # Both images of a prompt have four patches; the first image of a row begins where its slots do.
        inside = slot and sum(slots[:i]) % 4 != 0
        last = positions[-1] if positions else -1
        positions.append(last + (0 if inside and config.image_positions == "shared" else 1))
        order.append(order[-1] if inside and config.image_attention == "bidirectional" else i)
    return positions, order


def flat_scores(config, params, images, prompt, branches):
    """Each branch behind its own copy of images and prompt, one sequence each: logprobs and entropies."""
    starts = prompt.valid.sum(-1)
    ids, valid = np.zeros((B, G, P + R), int), np.zeros((B, G, P + R), bool)
    slots = np.zeros((B, G, P + R), bool)
    for b, g in np.ndindex(B, G):
        row = [*prompt.ids[b, : starts[b]], *branches.ids[b, g, branches.valid[b, g]]]
        ids[b, g, : len(row)], valid[b, g, : len(row)] = row, True
        slots[b, g, :P] = prompt.image_slots[b]
    copies = np.repeat(images, G, axis=0).reshape(-1, 16, 16, 3)

    def run(model):
        x, seen = model.embed(ids.reshape(B * G, -1)), model.vision(copies[:, None])
        where = np.nonzero(slots.reshape(B * G, -1))
        fill = lambda x, features: x.at[where].set(features.reshape(-1, x.shape[-1]))  # noqa: E731
        x = fill(x, seen.features)
        added = None
        if seen.deepstack is not None:
            added = jnp.stack([fill(jnp.zeros_like(x), deep)[:, None] for deep in seen.deepstack])
        rows = np.array([places(config, row) for row in slots.reshape(B * G, -1)])
        index = np.broadcast_to(np.arange(P + R), (B * G, 1, P + R)) if config.decoder.local_layers else None
        tokens = Tokens(rows[:, :1], rows[:, 1:], valid.reshape(B * G, 1, -1), index)
        hidden, _ = model.decoder(x[:, None], (), (), tokens, added)
        return hidden[:, 0].reshape(B, G, P + R, -1)

    hidden = VLM(config).apply({"params": params}, method=run)
    logprobs = jax.nn.log_softmax(hidden @ params["embedding" if config.tied else "lm_head"].T)
    before = starts[:, None, None] - 1 + np.arange(R)
    logprobs = jnp.take_along_axis(logprobs, np.broadcast_to(before, (B, G, R))[..., None], axis=2)
    chosen = jnp.take_along_axis(logprobs, branches.ids[..., None], axis=-1)[..., 0]
    return chosen, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)


def test_shared_prompts_score_as_flat_sequences(params, batch):
    valid, shared = batch[2].valid, score(CONFIG, params, *batch)
    logprobs, entropy = jax.jit(lambda params: flat_scores(CONFIG, params, *batch))(params)
    np.testing.assert_allclose(shared.logprobs[valid], logprobs[valid], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shared.entropy[valid], entropy[valid], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [VARIANT, LOCAL], ids=["options", "local"])
def test_shared_prompts_learn_as_flat_sequences(config, batch):
    """Scores, loss and the gradients of all parameters, with every option on."""
    params, valid = random_parameters(config), batch[2].valid
    weights = np.where(valid, np.random.default_rng(2).normal(size=(2, *valid.shape)), 0.0)

    def evaluate(scores):
        def loss(params):
            found = scores(config, params, *batch)[:2]
            return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True)), found

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (loss, scores), gradients = evaluate(forward)
    (flat_loss, flat), flat_gradients = evaluate(flat_scores)
    np.testing.assert_allclose(loss, flat_loss, rtol=1e-5)
    for found, expected in zip(scores, flat, strict=True):
        np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-5, atol=1e-5)
    # No parameter is left out, the vision tower's least of all.
    assert all(np.abs(gradient).max() > 1e-4 for gradient in jax.tree.leaves(flat_gradients))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=4e-5), gradients, flat_gradients
    )


def test_a_recomputed_layer_keeps_its_attention(params, batch):
    """Softmax takes exponentials once forward, and once backward in either case."""

    def exponentials(remat):
        config = dataclasses.replace(CONFIG, decoder=dataclasses.replace(DECODER, remat=remat))
        loss = lambda params: forward(config, params, *batch).logprobs.sum()  # noqa: E731
        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("= exp ")

    assert exponentials("full") > exponentials("keep_attention") == exponentials("none") > 0


def test_the_policy_sees_the_images(params, batch):
    images, prompt, branches = batch
    seen = score(CONFIG, params, images, prompt, branches).logprobs
    swapped = score(CONFIG, params, images[::-1], prompt, branches).logprobs
    reordered = score(CONFIG, params, images[:, ::-1], prompt, branches).logprobs
    for other in (swapped, reordered):
        assert np.abs(seen - other)[branches.valid].min() > 1e-5
        assert np.abs(seen - other)[branches.valid].max() > 1e-2


def test_hidden_images_are_not_seen(params, batch):
    images, prompt, branches = batch
    blind = prompt._replace(valid=prompt.valid & ~prompt.image_slots)
    seen = score(CONFIG, params, images, prompt, branches).logprobs
    hidden = score(CONFIG, params, images, blind, branches).logprobs
    assert np.abs(seen - hidden)[branches.valid].max() > 1e-2
    np.testing.assert_array_equal(score(CONFIG, params, images[::-1], blind, branches).logprobs, hidden)


def test_text_only_prompts_need_no_images(params, batch):
    images, prompt, branches = batch
    text = prompt._replace(image_slots=np.zeros_like(prompt.image_slots))
    without = score(CONFIG, params, None, text, branches).logprobs
    np.testing.assert_allclose(without, score(CONFIG, params, images, text, branches).logprobs, atol=1e-6)


def test_padding_changes_nothing(params, batch):
    """Longer prompts and branches, with anything in the padding."""
    images, prompt, branches = batch
    ids, valid, slots = (np.pad(x, ((0, 0), (0, 4))) for x in prompt)
    wide_prompt = PromptTokens(np.where(valid, ids, 7), valid, slots)
    ids, valid = (np.pad(x, ((0, 0), (0, 0), (0, 3))) for x in branches)
    wide_branches = BranchTokens(np.where(valid, ids, 9), valid)
    padded = score(CONFIG, params, images, wide_prompt, wide_branches)
    plain = score(CONFIG, params, images, prompt, branches)
    for found, expected in ((padded.logprobs, plain.logprobs), (padded.entropy, plain.entropy)):
        found, expected = found[..., :R][branches.valid], expected[branches.valid]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


PLACES = {
    ("causal", "sequential"): (
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    ),
    ("bidirectional", "sequential"): (
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [0, 1, 1, 1, 1, 5, 5, 5, 5, 9, 10, 11],
    ),
    ("bidirectional", "shared"): (
        [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5],
        [0, 1, 1, 1, 1, 5, 5, 5, 5, 9, 10, 11],
    ),
    ("causal", "shared"): ([0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
}


@pytest.mark.parametrize(("attention", "positions"), PLACES)
def test_places_of_two_adjacent_images(attention, positions):
    config = dataclasses.replace(CONFIG, image_attention=attention, image_positions=positions)
    slots = np.array([[TEXT, *[IMAGE] * 8, TEXT, TEXT, TEXT]])
    place = np.arange(8)[None]
    images = VisualTokens(None, place % 4 // 2, place % 2, place // 4)
    found = prompt_places(
        config, PromptTokens(np.zeros_like(slots, int), ~np.zeros_like(slots), slots), images
    )
    expected = PLACES[attention, positions]
    np.testing.assert_array_equal(found.positions[0, 0], expected[0])
    np.testing.assert_array_equal(found.order[0, 0], expected[1])


def test_unknown_image_options_are_refused():
    with pytest.raises(ValueError, match="image_attention is 'full'; it must be one of 'causal', 'bidirect"):
        dataclasses.replace(CONFIG, image_attention="full")
    with pytest.raises(
        ValueError, match="image_positions is 'none'; it must be one of 'sequential', 'shared'"
    ):
        dataclasses.replace(CONFIG, image_positions="none")
