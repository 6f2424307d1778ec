"""What `experiments.export` writes, as `transformers` and `peft` load it: the same log-probabilities as ours.

Needs torch and peft: `pip install 'mmrpt_jax[parity]'`.
"""

import jax
import numpy as np
import pytest
import transformers

from experiments import export
from mmrpt_jax.models.forward import forward
from mmrpt_jax.stages.completion import mark_complete
from mmrpt_jax.stages.finished import open_finished
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.workdir import write_identity
from tests.family_parity import torch
from tests.published_end_to_end_test import published_config
from tests.published_folders import write_qwen2_5_vl

peft = pytest.importorskip("peft", reason="parity tests need peft: pip install 'mmrpt_jax[parity]'")


@pytest.fixture(scope="module")
def folder(write_tokenizer, tmp_path_factory):
    return write_qwen2_5_vl(tmp_path_factory.mktemp("published"), write_tokenizer)


@pytest.fixture(scope="module")
def run(config, folder, tmp_path_factory):
    """A run with adapters that do something, as if it had trained them."""
    config, workdir = published_config(config, folder), tmp_path_factory.mktemp("run")
    config.train.lora.update(rank=3, alpha=5.0, targets=("decoder",))
    write_identity(config, workdir)
    run = open_finished(workdir, model_config)
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), run.first_weights())
    run.save(workdir / "arms" / "mmrpt" / "weights.safetensors", params)
    mark_complete(workdir / "arms" / "mmrpt", {})
    return run


@pytest.fixture(scope="module")
def expected(run):
    """Log-probabilities of a caption behind a picture, and the ids and the patches that gave them."""
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)
    inputs = run.processor.inputs([run.wording.caption], [run.processor.view(image)])
    from mmrpt_jax.data.prompts import encode_branches

    branches = encode_branches(run.tokenizer, [["the red circle"]], lengths=(32,))
    found = jax.jit(lambda *x: forward(run.vlm, *x))(run.arm("mmrpt"), *inputs, branches)
    ids = np.concatenate([inputs[1].ids[0][inputs[1].valid[0]], branches.ids[0, 0][branches.valid[0, 0]]])
    return image, ids, np.asarray(found.logprobs)[0, 0][branches.valid[0, 0]]


def theirs_of(model, folder, image, ids, count):
    """Log-probabilities of the last `count` ids, by their processor and their model."""
    pil = transformers.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil
    pixels = pil.from_pretrained(folder)(image, return_tensors="pt")
    tokens = torch.tensor(ids)[None]
    kinds = (tokens == model.config.image_token_id).int()
    with torch.no_grad():
        logits = model(input_ids=tokens, mm_token_type_ids=kinds, **pixels).logits[0]
    scores = torch.log_softmax(logits[-count - 1 : -1], dim=-1)
    return scores.gather(-1, tokens[0, -count:, None])[:, 0].numpy()


def load(folder):
    return transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def test_merged_weights_load_and_say_the_same(run, expected, tmp_path):
    out = tmp_path / "out"
    assert export.main(["--workdir", str(run.workdir), "--arm", "mmrpt", "--out", str(out)]) == 0
    image, ids, ours = expected
    np.testing.assert_allclose(theirs_of(load(out), out, image, ids, len(ours)), ours, atol=1e-4)


def test_adapters_load_over_the_base_and_say_the_same(run, folder, expected, tmp_path):
    out = tmp_path / "out"
    assert export.main(["--workdir", str(run.workdir), "--arm", "mmrpt", "--out", str(out), "--adapter"]) == 0
    image, ids, ours = expected
    plain = load(folder)
    before = theirs_of(plain, folder, image, ids, len(ours))
    adapted = peft.PeftModel.from_pretrained(plain, out).eval()
    np.testing.assert_allclose(theirs_of(adapted, folder, image, ids, len(ours)), ours, atol=1e-4)
    assert np.abs(before - ours).max() > 0.01
