"""The decoder against `transformers`: same weights, same log-probabilities, gradients and attention.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from safetensors.numpy import save_file

from mmrpt_jax.models import (
    BranchTokens,
    PromptTokens,
    RotaryConfig,
    TransformerConfig,
    VisionConfig,
    VLMConfig,
    abstract_parameters,
)
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.weight_table import TRANSPOSE, Weight

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'mmrpt_jax[parity]'")

WIDTH, LAYERS, HEADS, KV_HEADS, MLP, VOCAB = 32, 2, 4, 2, 48, 64
THETA, EPS = 500.0, 1e-5
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"head_dim": 8}, {"head_dim": 8}),
    "qwen2": (transformers.Qwen2Config, {}, {"head_dim": 8, "qkv_bias": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}, {"head_dim": 16, "qk_norm": True}),
}
LAYER = "model.layers.{layer}."
MATRICES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "mlp/gate": "mlp.gate_proj",
    "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
}
NORMS = {
    "attention_norm": "input_layernorm",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "mlp_norm": "post_attention_layernorm",
}
TABLE = [
    Weight("embedding", "model.embed_tokens.weight"),
    Weight("decoder/final_norm/scale", "model.norm.weight"),
    *[
        Weight(f"decoder/layers/{ours}/kernel", f"{LAYER}{name}.weight", TRANSPOSE)
        for ours, name in MATRICES.items()
    ],
    *[Weight(f"decoder/layers/{ours}/bias", f"{LAYER}{name}.bias") for ours, name in MATRICES.items()],
    *[Weight(f"decoder/layers/{ours}/scale", f"{LAYER}{name}.weight") for ours, name in NORMS.items()],
]
# We scale embeddings by √D on the way in and not on the way out, where a temperature makes up for it.
ROOT_WIDTH = WIDTH**0.5


def their_config(family):
    make_config, options, _ = FAMILIES[family]
    return make_config(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        rms_norm_eps=EPS,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        attn_implementation="eager",
        **options,
    )


def theirs(family):
    """A random model of the family, in float32 and with random scales and biases too."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(their_config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def ours(family):
    options = FAMILIES[family][2]
    decoder = TransformerConfig(
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=KV_HEADS,
        mlp=MLP,
        rope=RotaryConfig(THETA),
        norm_eps=EPS,
        **options,
    )
    tower = TransformerConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8)
    return VLMConfig(vocab_size=VOCAB, decoder=decoder, vision=VisionConfig(8, 8, 8, tower))


def decoder_parameters(family):
    """Abstract parameters of what the family has, too: the decoder and its embedding."""
    abstract = abstract_parameters(ours(family))
    return {name: abstract[name] for name in ("embedding", "decoder")}


def read_tensors(family, tensors, directory):
    """Our decoder's tree from their named tensors."""
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    return read_weights(directory, TABLE, decoder_parameters(family))


def rescaled(params, factor):
    return params | {"embedding": params["embedding"] * factor}


def each_branch(batch):
    """(b, g, token ids of prompt and branch, length of the prompt, length of the branch), without padding."""
    prompt, branches = batch
    for b, g in np.ndindex(*branches.valid.shape[:2]):
        start, length = prompt.valid[b].sum(), branches.valid[b, g].sum()
        ids = np.concatenate([prompt.ids[b, :start], branches.ids[b, g, :length]])
        yield b, g, torch.tensor(ids)[None], start, length


def chosen_logprobs(logits, ids, start):
    """Log-probabilities of the branch's tokens."""
    scores = torch.log_softmax(logits[0, start - 1 : -1], dim=-1)
    return scores.gather(-1, ids[0, start:, None])[:, 0]


def make_batch():
    """Two prompts of six and four tokens, three branches each, everything of another length."""
    rng = np.random.default_rng(0)
    prompt_valid = np.arange(6) < np.array([[6], [4]])
    branch_valid = np.arange(5) < np.array([[5, 2, 1], [3, 5, 4]])[..., None]
    no_slots = np.zeros((2, 6), bool)
    prompt = PromptTokens(rng.integers(0, VOCAB, (2, 6)), prompt_valid, no_slots)
    return prompt, BranchTokens(rng.integers(0, VOCAB, (2, 3, 5)), branch_valid)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_equals_transformers(family, tmp_path):
    prompt, branches = batch = make_batch()
    model, config = theirs(family), ours(family)
    valid = branches.valid
    weights = np.where(valid, np.random.default_rng(1).normal(size=valid.shape), 0.0).astype(np.float32)
    region = (np.arange(6) < 3) & prompt.valid

    logprobs, mass, loss = np.zeros(valid.shape), np.zeros((LAYERS, *valid.shape, HEADS)), 0.0
    for b, g, ids, start, length in each_branch(batch):
        out = model(ids, output_attentions=True)
        chosen = chosen_logprobs(out.logits, ids, start)
        loss = loss + (chosen * torch.tensor(weights[b, g, :length])).sum()
        logprobs[b, g, :length] = chosen.detach()
        for layer, chart in enumerate(out.attentions):
            mass[layer, b, g, :length] = chart[0, :, start:, :3].sum(-1).detach().T
    loss.backward()

    tensors = {name: x.detach().numpy() for name, x in model.named_parameters()}
    gradients = {name: x.grad.numpy() for name, x in model.named_parameters()}
    params = rescaled(read_tensors(family, tensors, tmp_path / "weights"), 1 / ROOT_WIDTH)
    expected = rescaled(read_tensors(family, gradients, tmp_path / "gradients"), ROOT_WIDTH)

    def score(params):
        out = forward(
            config,
            params,
            None,
            prompt,
            branches,
            temperature=1 / ROOT_WIDTH,
            regions=region[..., None].astype(np.float32),
            query_weights=valid.astype(np.float32),
        )
        return jnp.sum(weights * jnp.where(valid, out.logprobs, 0.0)), out

    (value, out), found = jax.jit(jax.value_and_grad(score, has_aux=True))(params)
    np.testing.assert_allclose(out.logprobs[valid], logprobs[valid], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected)
    np.testing.assert_allclose(out.mass[..., 0][:, valid], mass[:, valid], atol=1e-5)


@pytest.mark.parametrize("max_shard_bytes", [10_000, 10**9])
def test_transformers_loads_what_we_write(max_shard_bytes, tmp_path):
    rng = np.random.default_rng(2)
    # Scales and embeddings of about 1, in our way of scaling them.
    params = jax.tree.map(
        lambda leaf: jnp.asarray(1.0 + rng.normal(size=leaf.shape), np.float32), decoder_parameters("qwen2")
    )
    params = params | {"decoder": jax.tree.map(lambda x: 0.3 * x, params["decoder"])}
    write_weights(tmp_path / "ours", TABLE, params, max_shard_bytes=max_shard_bytes)
    their_config("qwen2").save_pretrained(tmp_path / "ours")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values())

    prompt, branches = batch = make_batch()
    scaled = rescaled(params, 1 / ROOT_WIDTH)
    out = forward(ours("qwen2"), scaled, None, prompt, branches, temperature=1 / ROOT_WIDTH)
    for b, g, ids, start, length in each_branch(batch):
        with torch.no_grad():
            expected = chosen_logprobs(model(ids).logits, ids, start)
        np.testing.assert_allclose(out.logprobs[b, g, :length], expected, rtol=1e-4, atol=1e-4)

    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_bytes)
    files = [sorted(path.name for path in (tmp_path / side).glob("model*")) for side in ("ours", "theirs")]
    assert [len(names) > 1 for names in files] == [max_shard_bytes == 10_000] * 2
    back = read_weights(tmp_path / "theirs", TABLE, decoder_parameters("qwen2"))
    jax.tree.map(np.testing.assert_array_equal, back, params)
