"""Qwen2.5-VL and Qwen3-VL against `transformers`: same checkpoint, same positions, logits and greedy tokens.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from mmrpt_jax.models import ImagePatches, PromptTokens, VLMConfig
from mmrpt_jax.models.families import qwen2_5_vl, qwen3_vl
from mmrpt_jax.models.places import prompt_places
from mmrpt_jax.models.vision import VisualTokens
from mmrpt_jax.sampling.rollout import make_rollout
from tests.family_parity import (
    branch_logits,
    exported,
    flat_pixels,
    import_weights,
    patches_of,
    save_random,
    split_rows,
    torch,
    whole_rows,
)

IMAGE, START, END, VOCAB = 150, 151, 152, 160
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
    "qwen2_5_vl": (
        qwen2_5_vl,
        lambda: transformers.Qwen2_5_VLForConditionalGeneration(
            transformers.Qwen2_5_VLConfig(
                text_config=TEXT | {"rope_parameters": rope(1, 1, 2)},
                vision_config=VISION | {"window_size": 16, "fullatt_block_indexes": [1]},
                **IDS,
            )
        ),
    ),
    "qwen3_vl": (
        qwen3_vl,
        lambda: transformers.Qwen3VLForConditionalGeneration(
            transformers.Qwen3VLConfig(
                text_config=TEXT | {"head_dim": 12, "rope_parameters": rope(3, 2, 1)},
                vision_config=VISION | {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1]},
                tie_word_embeddings=True,
                **IDS,
            )
        ),
    ),
}


class Checkpoint(NamedTuple):
    theirs: Any
    folder: Any
    config: VLMConfig
    params: dict
    table: list


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    family, make = FAMILIES[request.param]
    folder, model = tmp_path_factory.mktemp(request.param), make()
    config = family.model_config(save_random(model, folder))
    table = family.weight_table(config)
    return Checkpoint(model, folder, config, import_weights(config, table, folder), table)


@pytest.fixture(scope="module")
def images():
    """A prompt with a large image, one with two small ones, one without."""
    rng = np.random.default_rng(0)
    sizes = [[(8, 12)], [(4, 6), (6, 10)], []]
    return [
        [rng.integers(0, 256, (h * PATCH, w * PATCH, 3), np.uint8) for h, w in prompt] for prompt in sizes
    ]


@pytest.fixture(scope="module")
def rows(images):
    """Token ids of the three, of different lengths."""
    rng = np.random.default_rng(1)
    words = lambda count: rng.integers(3, 140, count)  # noqa: E731

    def shown(image):
        tokens = image.shape[0] * image.shape[1] // (PATCH * MERGE) ** 2
        return [START, *[IMAGE] * tokens, END]

    (large,), (first, second), _ = images
    return [
        np.array([*words(5), *shown(large), *words(7)]),
        np.array([*shown(first), *words(2), *shown(second), *words(6)]),
        words(11),
    ]


@pytest.fixture(scope="module")
def batch(rows, images):
    """Patches, prompts and branches."""
    starts = [len(row) - 5 for row in rows]
    prompt, branches = split_rows(rows, [row == IMAGE for row in rows], starts)
    return patches_of(images, PATCH, MERGE), prompt, branches


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


def test_positions(checkpoint, rows, images, batch):
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
    places = prompt_places(checkpoint.config, prompt, grid_of(batch[0]))
    found = np.moveaxis(np.asarray(places.positions[:, 0]), -1, 0)
    np.testing.assert_array_equal(found[:, valid], expected.numpy()[:, valid])
    # Where the next token would stand.
    following = (found.max(0) * valid).max(1) + 1
    np.testing.assert_array_equal(following, valid.sum(1) + deltas[:, 0].numpy())


def test_logits(checkpoint, images, batch):
    _, prompt, branches = batch
    ours = jax.jit(branch_logits, static_argnums=0)(checkpoint.config, checkpoint.params, *batch)
    for b, g in np.ndindex(*branches.ids.shape[:2]):
        theirs = their_logits(checkpoint, whole_rows(prompt, branches, b, g), images[b])
        length = branches.valid[b, g].sum()
        np.testing.assert_allclose(ours[b, g, :length], theirs[-length - 1 : -1], atol=1e-4)
        assert theirs.std() > 0.1


def test_greedy_tokens(checkpoint, rows, images):
    prompt, _ = split_rows(rows, [row == IMAGE for row in rows], [len(row) for row in rows])
    rollout = make_rollout(checkpoint.config, group_size=2, max_tokens=32, end_ids=[-1], temperature=0.0)
    patches = patches_of(images, PATCH, MERGE)
    found = jax.jit(rollout)(checkpoint.params, patches, prompt, jax.random.key(0)).ids
    for b, row in enumerate(rows):
        ids = row
        for _ in range(32):
            ids = np.append(ids, their_logits(checkpoint, ids, images[b])[-1].argmax())
        np.testing.assert_array_equal(found[b], [ids[len(row) :]] * 2)


def test_weights_come_back_bit_for_bit(checkpoint):
    stored = load_file(checkpoint.folder / "model.safetensors")
    written = exported(checkpoint.table, checkpoint.params)
    assert written.keys() == stored.keys()
    for name, tensor in stored.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_every_option_matters(checkpoint, batch):
    """What makes the family one changes the logits here, so the tests above would see it missing."""
    config = checkpoint.config
    run = jax.jit(branch_logits, static_argnums=0)
    plain = run(config, checkpoint.params, *batch)
    tower, vision = config.vision.transformer, config.vision
    rope = dataclasses.replace(config.decoder.rope, layout="restarted")
    changed = [dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, rope=rope))]
    if tower.local_layers:
        full = dataclasses.replace(vision, transformer=dataclasses.replace(tower, local_layers=()))
        changed.append(dataclasses.replace(config, vision=full))
    if vision.deepstack_layers:
        changed.append(dataclasses.replace(config, vision=dataclasses.replace(vision, deepstack_layers=())))
    for other in changed:
        assert np.abs(run(other, checkpoint.params, *batch) - plain)[:2].max() > 1e-2
