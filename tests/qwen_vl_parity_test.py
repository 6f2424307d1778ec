"""Qwen2.5-VL and Qwen3-VL against `transformers`: same checkpoint, same positions, logits and greedy tokens.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import dataclasses

import numpy as np
import pytest
import transformers

from mmrpt_jax.models import ImagePatches, PromptTokens
from mmrpt_jax.models.places import prompt_places
from mmrpt_jax.models.vision import VisualTokens
from tests.family_parity import (
    END,
    IMAGE,
    START,
    VOCAB,
    check_greedy_tokens,
    check_logits,
    check_options,
    check_round_trip,
    flat_pixels,
    make_batch,
    open_random,
    torch,
)

PATCH, MERGE, FRAMES = 4, 2, 2
TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    bos_token_id=None,
    eos_token_id=None,
)
VISION = dict(
    depth=3, hidden_size=32, intermediate_size=40, num_heads=2, patch_size=PATCH, out_hidden_size=32
)
IDS = dict(image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END)


def rope(*sections):
    return {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": list(sections)}


FAMILIES = {
    # Windows of 4 x 4 patches, so that images of this test have several, whole and cut ones.
    "qwen2_5_vl": lambda: transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config=TEXT | {"rope_parameters": rope(1, 1, 2)},
            vision_config=VISION | {"window_size": 16, "fullatt_block_indexes": [1]},
            **IDS,
        )
    ),
    "qwen3_vl": lambda: transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(
            text_config=TEXT | {"head_dim": 12, "rope_parameters": rope(3, 2, 1)},
            vision_config=VISION | {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1]},
            tie_word_embeddings=True,
            **IDS,
        )
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    return open_random(FAMILIES[request.param](), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def batch():
    """A prompt with a large image, one with two small ones, one without."""
    return make_batch([[(8, 12)], [(4, 6), (6, 10)], []], PATCH, MERGE)


def their_inputs(config, ids, images):
    """Keywords of their `forward` for one row."""
    inputs = {
        "input_ids": torch.tensor(ids)[None],
        "mm_token_type_ids": torch.tensor(ids == IMAGE)[None].int(),
    }
    if images:
        numbers = (config.vision.pixel_mean, config.vision.pixel_std)
        flat = [flat_pixels(image, PATCH, MERGE, FRAMES, *numbers) for image in images]
        grids = [[1, image.shape[0] // PATCH, image.shape[1] // PATCH] for image in images]
        inputs |= {
            "pixel_values": torch.tensor(np.concatenate(flat)),
            "image_grid_thw": torch.tensor(grids),
        }
    return inputs


def their_logits(checkpoint, ids, images):
    with torch.no_grad():
        return checkpoint.theirs(**their_inputs(checkpoint.config, ids, images)).logits[0].numpy()


def grid_of(patches: ImagePatches):
    corner = slice(None, None, MERGE**2)
    rows, columns, image = (x[:, corner] for x in patches[1:])
    return VisualTokens(None, rows // MERGE, columns // MERGE, image)


def test_positions(checkpoint, batch):
    rows, images = batch.rows, batch.images
    length = max(map(len, rows)) + 3
    ids, valid = np.zeros((3, length), int), np.arange(length) < np.array([[len(row)] for row in rows])
    ids[valid] = np.concatenate(rows)
    grids = [[1, x.shape[0] // PATCH, x.shape[1] // PATCH] for prompt in images for x in prompt]
    expected, deltas = checkpoint.theirs.model.get_rope_index(
        torch.tensor(ids),
        mm_token_type_ids=torch.tensor(ids == IMAGE).int(),
        image_grid_thw=torch.tensor(grids),
        attention_mask=torch.tensor(valid),
    )
    prompt = PromptTokens(ids, valid, ids == IMAGE)
    places = prompt_places(checkpoint.config, prompt, grid_of(batch.patches))
    found = np.moveaxis(np.asarray(places.positions[:, 0]), -1, 0)
    np.testing.assert_array_equal(found[:, valid], expected.numpy()[:, valid])
    # Where the next token would stand.
    following = (found.max(0) * valid).max(1) + 1
    np.testing.assert_array_equal(following, valid.sum(1) + deltas[:, 0].numpy())


def test_logits(checkpoint, batch):
    check_logits(checkpoint, batch, their_logits)


def test_greedy_tokens(checkpoint, batch):
    check_greedy_tokens(checkpoint, batch, their_logits)


def test_weights_come_back_bit_for_bit(checkpoint, tmp_path):
    check_round_trip(checkpoint, tmp_path)


def test_every_option_matters(checkpoint, batch):
    config = checkpoint.config
    tower, vision = config.vision.transformer, config.vision
    rope = dataclasses.replace(config.decoder.rope, layout="restarted")
    changed = [dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, rope=rope))]
    if tower.local_layers:
        full = dataclasses.replace(vision, transformer=dataclasses.replace(tower, local_layers=()))
        changed.append(dataclasses.replace(config, vision=full))
    if vision.deepstack_layers:
        changed.append(dataclasses.replace(config, vision=dataclasses.replace(vision, deepstack_layers=())))
    check_options(checkpoint, batch, changed)
