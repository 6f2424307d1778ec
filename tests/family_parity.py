"""What the parity tests of the families share: a random checkpoint, one mixed batch for both sides, and what must hold.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from mmrpt_jax.data.preprocessing.patches import cut_patches, join_patches, no_patches, stack_patches
from mmrpt_jax.models import VLM, BranchTokens, ImagePatches, PromptTokens, VLMConfig, abstract_parameters
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.families.registry import find_family
from mmrpt_jax.models.head import logits, output_matrix
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.weight_table import Weight, flatten, match_table
from mmrpt_jax.sampling.rollout import make_rollout

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'mmrpt_jax[parity]'")

IMAGE, START, END, VOCAB = 150, 151, 152, 160


class Checkpoint(NamedTuple):
    """Their model, the folder it was saved to, and what we read there."""

    theirs: Any
    folder: Path
    config: VLMConfig
    params: dict[str, Any]
    table: list[Weight]


class Batch(NamedTuple):
    """Images of each prompt, rows of token ids, and what our model takes of both: prompts and two branches each."""

    images: list[list[np.ndarray]]
    rows: list[np.ndarray]
    patches: ImagePatches
    prompt: PromptTokens
    branches: BranchTokens


# Logits of a row of token ids and its images, [T V].
TheirLogits = Callable[[Checkpoint, np.ndarray, Sequence[np.ndarray]], np.ndarray]


def open_random(model, folder: Path) -> Checkpoint:
    """Makes every parameter of a torch model random, saves it, and reads the folder."""
    numbers = save_random(model, folder)
    family = find_family(numbers)
    config = family.model_config(numbers)
    table = family.weight_table(config)
    params = read_weights(
        folder, table, abstract_parameters(config), ignored=family.ignored, spellings=family.spellings
    )
    return Checkpoint(model, folder, config, params, table)


def make_batch(sizes, patch_size: int, merge: int) -> Batch:
    """Random images of `sizes` (rows, columns of patches) for each prompt, and words around them."""
    rng = np.random.default_rng(0)
    images = [
        [rng.integers(0, 256, (h * patch_size, w * patch_size, 3), np.uint8) for h, w in prompt]
        for prompt in sizes
    ]

    def words(count):
        return rng.integers(3, 140, count).tolist()

    def shown(image):
        return [START, *[IMAGE] * (image[..., 0].size // (patch_size * merge) ** 2), END, *words(2)]

    rows = [
        np.array([*words(3 + number), *chain.from_iterable(map(shown, prompt)), *words(6)])
        for number, prompt in enumerate(images)
    ]
    prompt, branches = split_rows(rows, [len(row) - 5 for row in rows])
    return Batch(images, rows, patches_of(images, patch_size, merge), prompt, branches)


def check_logits(checkpoint: Checkpoint, batch: Batch, their_logits: TheirLogits) -> None:
    """Every branch of every prompt is as likely here as there."""
    ours = branch_logits(checkpoint.config, checkpoint.params, *batch[2:])
    for b, g in np.ndindex(*batch.branches.ids.shape[:2]):
        theirs = their_logits(checkpoint, whole_row(batch.prompt, batch.branches, b, g), batch.images[b])
        length = batch.branches.valid[b, g].sum()
        np.testing.assert_allclose(ours[b, g, :length], theirs[-length - 1 : -1], atol=1e-4)
        assert theirs.std() > 0.1


def check_greedy_tokens(checkpoint: Checkpoint, batch: Batch, their_logits: TheirLogits) -> None:
    """The word that a rollout finds likeliest, 32 times, is theirs, who read everything anew each time."""
    prompt, _ = split_rows(batch.rows, [len(row) for row in batch.rows])
    options = {"banned": np.arange(VOCAB) >= IMAGE, "temperature": 0.0}
    rollout = make_rollout(checkpoint.config, group_size=2, max_tokens=32, end_ids=[-1], **options)
    found = jax.jit(rollout)(checkpoint.params, batch.patches, prompt, jax.random.key(0)).ids
    for b, row in enumerate(batch.rows):
        ids = row
        for _ in range(32):
            ids = np.append(ids, their_logits(checkpoint, ids, batch.images[b])[-1, :IMAGE].argmax())
        np.testing.assert_array_equal(found[b], [ids[len(row) :]] * 2)


def check_round_trip(checkpoint: Checkpoint, folder: Path) -> None:
    """What we write to an empty folder loads there, bit for bit; and we know where."""
    write_weights(folder, checkpoint.table, checkpoint.params)
    shutil.copy(checkpoint.folder / "config.json", folder)
    back = type(checkpoint.theirs).from_pretrained(folder).state_dict()
    expected = checkpoint.theirs.state_dict()
    assert back.keys() == expected.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    leaves = flatten(checkpoint.params)
    family = find_family(json.loads((folder / "config.json").read_text()))
    modules = match_table(family.module_table(checkpoint.config), leaves)
    names = {name for path, weight in modules.items() for name in weight.their_names(leaves[path].shape)}
    assert back.keys() - names == ({"lm_head.weight"} if checkpoint.config.tied else set())


def check_options(checkpoint: Checkpoint, batch: Batch, others: Sequence[VLMConfig]) -> None:
    """What makes the family one changes the logits of prompts with images, so the other checks would see it missing."""
    plain = branch_logits(checkpoint.config, checkpoint.params, *batch[2:])
    for other in others:
        assert other != checkpoint.config
        assert np.abs(branch_logits(other, checkpoint.params, *batch[2:]) - plain)[:2].max() > 1e-2


def save_random(model, folder):
    """Saves a torch model, every parameter random, also those that are born as ones or zeros."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0, 0.2)
    model.eval().save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def patches_of(prompts, patch_size, merge):
    """The patches of each prompt's images [h w 3], padded to the longest prompt and one block more."""
    cut = [
        [cut_patches(image, patch_size=patch_size, merge=merge, index=i) for i, image in enumerate(images)]
        for images in prompts
    ]
    joined = [join_patches(tiles) if tiles else no_patches(patch_size) for tiles in cut]
    longest = max(len(patches.image) for patches in joined)
    return stack_patches(joined, counts=[longest + merge**2], merge=merge)


def split_rows(ids, starts, *, image=IMAGE):
    """Prompts up to `starts`; behind them two branches: the rest of the row, and the same backwards without its end."""
    longest = max(len(row) - start for row, start in zip(ids, starts, strict=True))
    prompt = PromptTokens(*(np.zeros((len(ids), max(starts)), kind) for kind in (int, bool, bool)))
    branches = BranchTokens(*(np.zeros((len(ids), 2, longest), kind) for kind in (int, bool)))
    for b, start in enumerate(starts):
        rest = ids[b][start:]
        prompt.ids[b, :start], prompt.valid[b, :start] = ids[b][:start], True
        prompt.image_slots[b, :start] = ids[b][:start] == image
        for g, words in enumerate((rest, rest[-2::-1])):
            branches.ids[b, g, : len(words)], branches.valid[b, g, : len(words)] = words, True
    return prompt, branches


@functools.partial(jax.jit, static_argnums=0)
def branch_logits(config, params, images, prompt, branches):
    """Logits that predict each branch token: [B G R V]."""
    model, variables = VLM(config), {"params": params}
    state = model.apply(variables, images, prompt, method=VLM.encode_prompt)
    hidden, _ = model.apply(variables, state, branches, method=VLM.extend)
    return logits(hidden, output_matrix(params), softcap=config.logit_softcap)


def whole_row(prompt, branches, b, g):
    """Token ids of prompt and branch, without padding."""
    return np.concatenate([prompt.ids[b, prompt.valid[b]], branches.ids[b, g, branches.valid[b, g]]])


def flat_pixels(image, patch_size, merge, frames, mean, std):
    """Their patches of an image: blocks of patches; channel, frame, row, column; normalised."""
    normal = (image / 255.0 - np.array(mean)) / np.array(std)
    height, width = (size // patch_size for size in image.shape[:2])
    grid = normal.reshape(height // merge, merge, patch_size, width // merge, merge, patch_size, 3)
    blocks = grid.transpose(0, 3, 1, 4, 6, 2, 5)
    patches = blocks.reshape(height * width, 3, 1, patch_size, patch_size)
    return np.repeat(patches, frames, axis=2).reshape(height * width, -1).astype(np.float32)
