"""BAGEL against a plain NumPy reading of it, and parts of it against `transformers`, which has no class for the whole.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from mmrpt_jax.models import VLM, BranchTokens, UnifiedConfig, abstract_parameters
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.families import bagel
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.unified import encode_prompt, encode_thoughts, velocity
from tests.bagel_numpy import Bagel, Noise, Picture, Text, run
from tests.family_parity import branch_logits, patches_of, split_rows, torch
from tests.tiny_bagel import (
    CHANNELS,
    HEADS,
    LAYERS,
    LLM,
    MAX_LATENT_SIZE,
    PACK,
    PATCH,
    SIDE,
    TOWER_WIDTH,
    VIT,
    WHOLE,
    WIDTH,
    table_of_positions,
    write_checkpoint,
)

PAD, START, END = 70, 71, 72


@functools.partial(jax.jit, static_argnums=0)
def run_flow(config, params, patches, prompt, latents, times, thoughts):
    state = encode_prompt(config, params, patches, prompt)
    return velocity(config, params, state, latents, times, encode_thoughts(config, params, state, thoughts))


@functools.partial(jax.jit, static_argnums=0)
def run_tower(config, params, images):
    see = lambda model, images: model.vision(images).features  # noqa: E731
    return VLM(config).apply({"params": params}, images, method=see)


class Checkpoint(NamedTuple):
    """Both readings of one folder."""

    theirs: Bagel
    config: UnifiedConfig
    params: dict
    table: list


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bagel")
    write_checkpoint(folder)
    tensors = load_file(bagel.weights_file(folder))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    config = bagel.model_config(
        bagel.read_config(folder), shapes, image_marks=(START, END), image_size=(4 * 8, 3 * 8)
    )
    table = bagel.weight_table(config)
    params = read_weights(
        bagel.weights_file(folder), table, abstract_parameters(config), ignored=bagel.IGNORED
    )
    return Checkpoint(Bagel(tensors, LLM, VIT, (START, END)), config, params, table)


@pytest.fixture(scope="module")
def images():
    """Of a prompt with two images of different sizes, one with one, one with none."""
    rng = np.random.default_rng(1)
    sizes = [[(3, 5), (2, 2)], [(6, 4)], []]
    return [
        [rng.integers(0, 256, (h * PATCH, w * PATCH, 3), np.uint8) for h, w in prompt] for prompt in sizes
    ]


@pytest.fixture(scope="module")
def segments(images):
    """The three prompts as their own code packs them."""
    rng = np.random.default_rng(2)
    (large, small), (tall,), _ = images
    words = lambda count: Text([int(i) for i in rng.integers(3, 60, count)])  # noqa: E731
    return [
        [words(3), Picture(large), words(2), Picture(small), words(7)],
        [Picture(tall), words(6)],
        [words(9)],
    ]


@pytest.fixture(scope="module")
def rows(segments):
    """Their token ids."""

    def ids(segment):
        if isinstance(segment, Text):
            return segment.ids
        height, width = (size // PATCH for size in segment.pixels.shape[:2])
        return [START, *[PAD] * (height * width), END]

    return [np.array([i for segment in prompt for i in ids(segment)]) for prompt in segments]


def split(rows, behind):
    return split_rows(rows, [len(row) - behind for row in rows], image=PAD)


def test_sizes_are_read_from_the_tensors(checkpoint):
    config = checkpoint.config
    assert config.vlm.vision.transformer.layers == 2
    assert config.vlm.vision.grid == (SIDE, SIDE)
    assert (config.latent.channels, config.latent.grid) == (CHANNELS, (4, 3))
    shapes = {name: tensor.shape for name, tensor in checkpoint.theirs.weights.items()}
    options = WHOLE | {"llm_config": LLM, "vit_config": VIT}
    largest = bagel.model_config(options, shapes, image_marks=(START, END)).latent
    assert largest.grid == (MAX_LATENT_SIZE, MAX_LATENT_SIZE)
    with pytest.raises(ValueError, match=r"images of 48x32 pixels cannot be drawn: .* positions for 40x40"):
        bagel.model_config(options, shapes, image_marks=(START, END), image_size=(48, 32))
    with pytest.raises(ValueError, match="interpolate_pos is set"):
        bagel.model_config(options | {"interpolate_pos": True}, shapes, image_marks=(START, END))
    del shapes["latent_pos_embed.pos_embed"]
    with pytest.raises(ValueError, match=r"no latent_pos_embed\.pos_embed, whose shape tells"):
        bagel.model_config(options, shapes, image_marks=(START, END))


@pytest.fixture(scope="module")
def found_logits(checkpoint, images, rows):
    """Of the last five tokens of each prompt: [B 5 V]."""
    batch = split(rows, 5)
    patches = patches_of(images, PATCH, 1)
    ours = branch_logits(checkpoint.config.vlm, checkpoint.params, patches, *batch)
    return np.asarray(ours[:, 0])


def test_logits(checkpoint, segments, found_logits):
    for found, prompt in zip(found_logits, segments, strict=True):
        theirs, _ = run(checkpoint.theirs, prompt)
        np.testing.assert_allclose(found, theirs[-6:-1], atol=1e-4)
        assert theirs.std() > 0.1


def test_velocities(checkpoint, images, segments, rows):
    """Of images behind each prompt and behind none at all, which is where guidance steers away from.

    The first of two follows right away, the second behind a thought.
    """
    rng = np.random.default_rng(3)
    prompt, _ = split([*rows, rows[-1]], 0)
    prompt.valid[3] = False
    thoughts = BranchTokens(rng.integers(3, 60, (4, 2, 3)), np.zeros((4, 2, 3), bool))
    thoughts.valid[:, 1] = np.arange(3) < np.array([[3], [1], [2], [3]])
    latents = rng.normal(size=(4, 2, 12, PACK**2 * CHANNELS)).astype(np.float32)
    times = rng.random((4, 2)).astype(np.float32)
    inputs = (patches_of([*images, []], PATCH, 1), prompt, latents, times, thoughts)
    found = run_flow(checkpoint.config, checkpoint.params, *inputs)
    for (b, g), before in zip(np.ndindex(4, 2), [x for x in [*segments, []] for _ in range(2)], strict=True):
        thought = Text([int(i) for i in thoughts.ids[b, g, thoughts.valid[b, g]]])
        noise = Noise(latents[b, g], 4, 3, times[b, g])
        _, (theirs,) = run(checkpoint.theirs, [*before, thought, noise])
        np.testing.assert_allclose(found[b, g], theirs, atol=1e-4)
        assert theirs.std() > 0.1


def test_text_equals_transformers(checkpoint, rows, found_logits):
    """Qwen 3's decoder with biases is Qwen 2's with norms of queries and keys; one bias more is zero."""
    config = transformers.Qwen3Config(
        **{name: value for name, value in LLM.items() if not name.startswith("rope")},
        head_dim=WIDTH // HEADS,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": LLM["rope_theta"]},
        tie_word_embeddings=False,
    )
    torch.set_num_threads(1)
    model = transformers.Qwen3ForCausalLM(config).eval()
    stored = {
        name.removeprefix("language_model."): torch.tensor(tensor)
        for name, tensor in checkpoint.theirs.weights.items()
        if name.startswith("language_model.") and "_moe_gen" not in name
    }
    zeros = {f"model.layers.{layer}.self_attn.o_proj.bias": torch.zeros(WIDTH) for layer in range(LAYERS)}
    model.load_state_dict(stored | zeros)
    with torch.no_grad():
        theirs = model(torch.tensor(rows[2])[None]).logits[0].numpy()
    np.testing.assert_allclose(found_logits[2], theirs[-6:-1], atol=1e-4)


def test_tower_equals_transformers(checkpoint, images):
    """SigLIP, whose convolution BAGEL made linear: rows, columns and channels of a patch in this order."""
    config = transformers.SiglipVisionConfig(**(VIT | {"num_hidden_layers": 2}), vision_use_head=False)
    model = transformers.SiglipVisionModel(config).eval()
    prefix = "vit_model.vision_model."
    stored = {
        name.removeprefix(prefix): torch.tensor(tensor)
        for name, tensor in checkpoint.theirs.weights.items()
        if name.startswith(prefix)
    }
    kernel = stored["embeddings.patch_embedding.weight"].reshape(TOWER_WIDTH, PATCH, PATCH, 3)
    stored["embeddings.patch_embedding.weight"] = kernel.permute(0, 3, 1, 2)
    model.base_model.load_state_dict(stored)
    pixels = np.random.default_rng(6).integers(0, 256, (SIDE * PATCH, SIDE * PATCH, 3), np.uint8)
    with torch.no_grad():
        normal = torch.tensor(pixels / 127.5 - 1.0).float().permute(2, 0, 1)[None]
        theirs = model(normal).last_hidden_state[0]
        weights = {name: torch.tensor(tensor) for name, tensor in checkpoint.theirs.weights.items()}
        inner = torch.nn.functional.linear(
            theirs, weights["connector.fc1.weight"], weights["connector.fc1.bias"]
        )
        inner = torch.nn.functional.gelu(inner, approximate="tanh")
        theirs = torch.nn.functional.linear(
            inner, weights["connector.fc2.weight"], weights["connector.fc2.bias"]
        )
    found = run_tower(checkpoint.config.vlm, checkpoint.params, pixels[None, None])
    np.testing.assert_allclose(found[0], theirs.numpy() + table_of_positions(SIDE), atol=1e-4)


def test_weights_come_back_bit_for_bit(checkpoint, tmp_path):
    stored = checkpoint.theirs.weights
    write_weights(tmp_path, checkpoint.table, checkpoint.params)
    written = load_file(tmp_path / "model.safetensors")
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    tables = bagel.fixed_tables(checkpoint.config, shapes)
    assert written.keys() | tables.keys() == stored.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, stored[name], err_msg=name)
    for name, tensor in tables.items():
        np.testing.assert_allclose(tensor, stored[name], atol=1e-6, err_msg=name)
