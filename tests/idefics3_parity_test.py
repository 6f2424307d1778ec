"""Idefics3 and SmolVLM against `transformers`: same checkpoint, same positions of patches, logits and greedy tokens.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import dataclasses

import jax
import numpy as np
import pytest
import transformers

from mmrpt_jax.models import ImagePatches, VLMConfig
from mmrpt_jax.models.families.idefics3 import model_config
from mmrpt_jax.models.patches import learned_positions
from tests.family_parity import (
    IMAGE,
    VOCAB,
    check_greedy_tokens,
    check_logits,
    check_options,
    check_round_trip,
    make_batch,
    open_random,
    torch,
)

PATCH, MERGE = 4, 2
TEXT = dict(
    model_type="llama",
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
)
# 26 pixels are 6 patches, and 2 pixels that are not looked at.
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=26,
    patch_size=PATCH,
)
# A text that begins to be stretched behind 8 tokens.
STRETCHED = dict(
    rope_type="llama3",
    rope_theta=100.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
FAMILIES = {
    "idefics3": lambda: transformers.Idefics3ForConditionalGeneration(
        transformers.Idefics3Config(
            text_config=TEXT | {"rope_parameters": STRETCHED, "attention_bias": True, "mlp_bias": True},
            vision_config=VISION,
            scale_factor=MERGE,
            image_token_id=IMAGE,
        )
    ),
    "smolvlm": lambda: transformers.SmolVLMForConditionalGeneration(
        transformers.SmolVLMConfig(
            text_config=TEXT,
            vision_config=VISION,
            scale_factor=MERGE,
            image_token_id=IMAGE,
            tie_word_embeddings=True,
        )
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    return open_random(FAMILIES[request.param](), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def batch():
    """A prompt with an image of two crops and the whole, one with two smaller images, one without."""
    return make_batch([[(6, 6)] * 3, [(4, 4)] * 2, []], PATCH, MERGE)


def their_logits(checkpoint, ids, images):
    pixels = None
    if images:
        pixels = torch.tensor(np.stack(images) / 127.5 - 1, dtype=torch.float32).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        return checkpoint.theirs(input_ids=torch.tensor(ids)[None], pixel_values=pixels).logits[0].numpy()


@pytest.mark.parametrize("side", [6, 26, 27, 32])
def test_learned_positions(side):
    """Which position each patch of an image of any size has; 26, 27 and 32 a side are those of published towers."""
    kind = transformers.models.idefics3.modeling_idefics3.Idefics3VisionEmbeddings
    theirs = kind(transformers.Idefics3VisionConfig(hidden_size=2, image_size=side, patch_size=1))
    table = np.stack([np.arange(side**2), np.zeros(side**2)], axis=1).astype(np.float32)
    with torch.no_grad():
        theirs.patch_embedding.weight.zero_()
        theirs.patch_embedding.bias.zero_()
        theirs.position_embedding.weight.copy_(torch.tensor(table))
    sizes = [(height, side + 3 - height) for height in range(1, side + 3)]
    # A row for each size, padded to the longest.
    places = np.full((3, len(sizes), max(height * width for height, width in sizes)), -1)
    for row, (height, width) in enumerate(sizes):
        grid = np.indices((height, width)).reshape(2, -1)
        places[:, row, : grid.shape[1]] = *grid, np.zeros(grid.shape[1])
    patches = ImagePatches(np.zeros((*places.shape[1:], 3), np.uint8), *places)
    found = jax.jit(learned_positions, static_argnums=(1, 3))(table, (side, side), patches, "nearest")
    for row, (height, width) in enumerate(sizes):
        with torch.no_grad():
            seen = torch.ones(1, height, width, dtype=torch.bool)
            expected = theirs(torch.zeros(1, 3, height, width), seen)[0].numpy()
        np.testing.assert_array_equal(found[row, : height * width], expected)


def test_logits(checkpoint, batch):
    check_logits(checkpoint, batch, their_logits)


def test_greedy_tokens(checkpoint, batch):
    check_greedy_tokens(checkpoint, batch, their_logits)


def test_weights_come_back_bit_for_bit(checkpoint, tmp_path):
    check_round_trip(checkpoint, tmp_path)


def test_every_option_matters(checkpoint, batch):
    config = checkpoint.config
    exact = dataclasses.replace(config.vision, positions="exact")
    changed = [dataclasses.replace(config, vision=exact)]
    if config.decoder.rope.stretch_band:
        rope = dataclasses.replace(config.decoder.rope, stretch_band=())
        changed.append(dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, rope=rope)))
    check_options(checkpoint, batch, changed)


def test_what_a_config_leaves_out():
    """SmolVLM's files say little; `transformers` knows the rest."""
    text = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "rope_theta": 100_000}
    brief = {
        "model_type": "smolvlm",
        "text_config": text,
        "vision_config": {"image_size": 512, "patch_size": 16},
    }
    config = model_config(brief)
    assert isinstance(config, VLMConfig)
    assert config == model_config(transformers.SmolVLMConfig(**brief).to_dict())
    assert config.vision.grid == (32, 32)
