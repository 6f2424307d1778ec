"""Adapters against `peft`: what we write loads over the same base, and says the same.

Needs torch and peft: `pip install 'mmrpt_jax[parity]'`.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.initialise import initialise
from mmrpt_jax.models.lora import adapter_only, merge_lora
from mmrpt_jax.models.paths import overlay
from mmrpt_jax.models.peft_export import save_peft_adapter
from tests.parity_test import LAYERS, ROOT_WIDTH, TABLE, make_batch, ours, read_tensors, rescaled, theirs

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'mmrpt_jax[parity]'")
peft = pytest.importorskip("peft", reason="parity tests need peft: pip install 'mmrpt_jax[parity]'")

LORA = LoraConfig(rank=3, alpha=5.0, targets=("query", "value", "out", "down"))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """(model, params): a Qwen2 with biases, and adapters that do something."""
    plain = ours("qwen2")
    model = dataclasses.replace(plain, decoder=dataclasses.replace(plain.decoder, lora=LORA))
    rng = np.random.default_rng(2)
    adapters = jax.tree.map(
        lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32),
        initialise(model, jax.random.key(0), part=adapter_only),
    )
    tensors = {name: x.detach().numpy() for name, x in theirs("qwen2").named_parameters()}
    base = read_tensors("qwen2", tensors, tmp_path_factory.mktemp("base") / "qwen2")
    return model, overlay(rescaled(base, 1 / ROOT_WIDTH), adapters)


@pytest.fixture(scope="module")
def loaded(adapted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    save_peft_adapter(folder, adapted[1], LORA, TABLE)
    return peft.PeftModel.from_pretrained(theirs("qwen2"), folder).eval()


def logprobs_of(model, prompt, branches):
    """[B G R] of the branch tokens, sequence by sequence."""
    found = np.zeros(branches.valid.shape)
    for b, g in np.ndindex(*branches.valid.shape[:2]):
        start, length = prompt.valid[b].sum(), branches.valid[b, g].sum()
        ids = torch.tensor(np.concatenate([prompt.ids[b, :start], branches.ids[b, g, :length]]))[None]
        with torch.no_grad():
            scores = torch.log_softmax(model(ids).logits[0, start - 1 : -1], dim=-1)
        found[b, g, :length] = scores.gather(-1, ids[0, start:, None])[:, 0]
    return found


def test_peft_says_the_same(adapted, loaded):
    (model, params), (prompt, branches) = adapted, make_batch()
    expected, plain = logprobs_of(loaded, prompt, branches), logprobs_of(theirs("qwen2"), prompt, branches)
    # As in `parity_test`, a temperature makes up for embeddings that are scaled on the way in alone.
    found = forward(model, params, None, prompt, branches, temperature=1 / ROOT_WIDTH).logprobs
    valid = branches.valid
    np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-4, atol=1e-4)
    assert np.abs(expected - plain)[valid].max() > 0.1


def test_merged_weights_are_those_of_peft(adapted, loaded):
    merged, layers = merge_lora(adapted[1], LORA), loaded.merge_and_unload().model.layers
    for place, name in (
        ("query", "self_attn.q_proj"),
        ("key", "self_attn.k_proj"),
        ("down", "mlp.down_proj"),
    ):
        ours_of = merged["decoder"]["layers"]
        ours_of = ours_of["mlp"][place] if place == "down" else ours_of[place]
        for i, layer in enumerate(layers):
            weight = layer.get_submodule(name).weight.detach().numpy().T
            np.testing.assert_allclose(
                ours_of["kernel"][i], weight, rtol=1e-5, atol=1e-6, err_msg=f"{name} {i}"
            )


def test_only_what_is_adapted_is_written(adapted, tmp_path):
    save_peft_adapter(tmp_path, adapted[1], LORA, TABLE, base="org/model")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (3, 5.0, "org/model")
    assert len(config["target_modules"]) == 4 * LAYERS
    table = [weight for weight in TABLE if "query" not in weight.ours]
    with pytest.raises(ValueError, match="decoder/layers/query/kernel has no tensors of its own"):
        save_peft_adapter(tmp_path, adapted[1], LORA, table)
