"""What the parity tests of the families share: a random checkpoint, its import, and one mixed batch for both sides."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmrpt_jax.models import VLM, BranchTokens, ImagePatches, PromptTokens, abstract_parameters
from mmrpt_jax.models.head import logits, output_matrix
from mmrpt_jax.models.patches import cut_images
from mmrpt_jax.models.weight_table import flatten, match_table

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'mmrpt_jax[parity]'")


def save_random(model, folder):
    """Saves a torch model, every parameter random, also those that are born as ones or zeros."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0, 0.2)
    model.eval().save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def import_weights(config, table, folder):
    """Our parameters from a checkpoint of one file."""
    return import_tensors(config, table, load_file(folder / "model.safetensors"))


def import_tensors(config, table, tensors):
    """Our parameters from a checkpoint's tensors."""
    shapes, params = flatten(abstract_parameters(config)), {}
    for name, weight in match_table(table, shapes).items():
        read = [weight.to_ours(tensors[theirs]) for theirs in weight.their_names(shapes[name].shape)]
        array = np.stack(read) if weight.stacked else read[0]
        assert array.shape == shapes[name].shape, name
        *nodes, leaf = name.split("/")
        node = params
        for part in nodes:
            node = node.setdefault(part, {})
        node[leaf] = np.ascontiguousarray(array)
    return params


def exported(table, params):
    """The checkpoint's tensors, made of our parameters again."""
    pieces, leaves = {}, flatten(params)
    for name, weight in match_table(table, leaves).items():
        arrays = leaves[name] if weight.stacked else [leaves[name]]
        for theirs, array in zip(weight.their_names(leaves[name].shape), arrays, strict=True):
            pieces.setdefault(theirs, {})[weight.part] = weight.layout.to_theirs(array)
    return {name: np.concatenate([held[part] for part in sorted(held)]) for name, held in pieces.items()}


def patches_of(prompts, patch_size, merge):
    """The patches of each prompt's images [h w 3], padded to the longest prompt and one block more."""
    length = (
        max(sum(image[..., 0].size for image in images) for images in prompts) // patch_size**2 + merge**2
    )
    batch = ImagePatches(
        np.zeros((len(prompts), length, patch_size**2 * 3), np.uint8),
        *(np.full((len(prompts), length), fill, np.int32) for fill in (0, 0, -1)),
    )
    for b, images in enumerate(prompts):
        start = 0
        for number, image in enumerate(images):
            cut = jax.tree.map(lambda x: x[0], cut_images(image[None], patch_size, merge))
            here = slice(start, start + len(cut.rows))
            for field, values in zip(batch, cut._replace(image=number), strict=True):
                field[b, here] = values
            start = here.stop
    return batch


def split_rows(ids, slots, starts):
    """Prompts up to `starts`; behind them two branches: the rest of the row, and the same backwards without its end."""
    longest = max(len(row) - start for row, start in zip(ids, starts, strict=True))
    prompt = PromptTokens(*(np.zeros((len(ids), max(starts)), kind) for kind in (int, bool, bool)))
    branches = BranchTokens(*(np.zeros((len(ids), 2, longest), kind) for kind in (int, bool)))
    for b, start in enumerate(starts):
        rest = ids[b][start:]
        prompt.ids[b, :start], prompt.valid[b, :start] = ids[b][:start], True
        prompt.image_slots[b, :start] = slots[b][:start]
        for g, words in enumerate((rest, rest[-2::-1])):
            branches.ids[b, g, : len(words)], branches.valid[b, g, : len(words)] = words, True
    return prompt, branches


def branch_logits(config, params, images, prompt, branches):
    """Logits that predict each branch token: [B G R V]."""
    model, variables = VLM(config), {"params": params}
    state = model.apply(variables, images, prompt, method=VLM.encode_prompt)
    hidden, _ = model.apply(variables, state, branches, method=VLM.extend)
    return logits(hidden, output_matrix(params), softcap=config.logit_softcap)


def whole_rows(prompt, branches, b, g):
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
