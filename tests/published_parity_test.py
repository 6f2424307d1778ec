"""A published directory, opened without a word about its family, against `transformers` on the same directory.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import importlib
import inspect

import numpy as np
import pytest
import transformers
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import encode_branches
from mmrpt_jax.data.tokenizer import IMAGE
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.stages.published import open_published
from tests.family_parity import branch_logits, torch, whole_row
from tests.published_folders import write_gemma3, write_qwen2_5_vl, write_smolvlm

BUCKETS = ConfigDict({"prompt_lengths": (160,), "patch_counts": (256,)})
PROMPTS = (f"{IMAGE} what is it ?", f"{IMAGE}{IMAGE} in the\n\n red", "the red circle")
SIZES = ([(50, 70)], [(20, 90), (33, 31)], [])


@pytest.fixture(scope="module", params=[write_qwen2_5_vl, write_smolvlm, write_gemma3])
def folder(request, write_tokenizer, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("published"), write_tokenizer)


def their_inputs(folder, ids, image_id, images):
    """What their model takes, the images prepared by their PIL-backed processor."""
    tokens = torch.tensor(ids)[None]
    kinds = (tokens == image_id).int()
    inputs = {"input_ids": tokens, "mm_token_type_ids": kinds, "token_type_ids": kinds}
    if images:
        name = transformers.ImageProcessingMixin.get_image_processor_dict(folder)[0]["image_processor_type"]
        package = {"Q": "qwen2_vl", "S": "smolvlm", "G": "gemma3"}[name[0]]
        module = importlib.import_module(f"transformers.models.{package}.image_processing_pil_{package}")
        inputs |= getattr(module, f"{name}Pil").from_pretrained(folder)([images], return_tensors="pt")
    return inputs


def test_logits(folder):
    """Prompts with an image, with two, and without, each with a continuation."""
    published = open_published(str(folder))
    processor = published.processor(BUCKETS)
    rng = np.random.default_rng(0)
    images = [[rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes] for sizes in SIZES]
    patches, prompt = processor.inputs(PROMPTS, [processor.view(*pictures) for pictures in images])
    branches = encode_branches(processor.tokenizer, [["the red circle"]] * 3, lengths=(32,))
    params = published.weights(abstract_parameters(published.model))
    ours = branch_logits(published.model, params, patches, prompt, branches)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    takes = inspect.signature(model.forward).parameters
    for b, pictures in enumerate(images):
        ids = whole_row(prompt, branches, b, 0)
        inputs = their_inputs(folder, ids, processor.tokenizer.image_id, pictures)
        with torch.no_grad():
            theirs = model(**{k: x for k, x in inputs.items() if k in takes}).logits[0].numpy()
        length = branches.valid[b, 0].sum()
        np.testing.assert_allclose(ours[b, 0, :length], theirs[-length - 1 : -1], atol=1e-4)
        assert theirs.std() > 0.01
