"""The decoder against `transformers`: same weights, same log-probabilities, gradients and attention.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from mmrpt_jax.models import (
    BranchTokens,
    PromptTokens,
    TransformerConfig,
    VisionConfig,
    VLMConfig,
    abstract_parameters,
)
from mmrpt_jax.models.forward import forward

torch = pytest.importorskip("torch", reason="parity tests need torch: pip install 'mmrpt_jax[parity]'")

WIDTH, LAYERS, HEADS, KV_HEADS, MLP, VOCAB = 32, 2, 4, 2, 48, 64
THETA, EPS = 500.0, 1e-5
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"head_dim": 8}, {"head_dim": 8}),
    "qwen2": (transformers.Qwen2Config, {}, {"head_dim": 8, "qkv_bias": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}, {"head_dim": 16, "qk_norm": True}),
}
LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


def theirs(family):
    """A random model of the family, in float32 and with random scales and biases too."""
    make_config, options, _ = FAMILIES[family]
    config = make_config(
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
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
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
        rope_theta=THETA,
        norm_eps=EPS,
        **options,
    )
    tower = TransformerConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8)
    return VLMConfig(vocab_size=VOCAB, decoder=decoder, vision=VisionConfig(8, 8, 8, tower))


def translate(tensors, embedding_scale):
    """Our decoder's tree from their named tensors: layers stacked, matrices input × output."""
    tree = {"embedding": tensors["model.embed_tokens.weight"] * embedding_scale, "decoder": {"layers": {}}}
    tree["decoder"]["final_norm"] = {"scale": tensors["model.norm.weight"]}
    for name, their_name in LAYER_NAMES.items():
        node = functools.reduce(
            lambda at, part: at.setdefault(part, {}), name.split("."), tree["decoder"]["layers"]
        )
        for kind in ("weight", "bias"):
            found = [tensors.get(f"model.layers.{i}.{their_name}.{kind}") for i in range(LAYERS)]
            if found[0] is not None:
                leaf = "bias" if kind == "bias" else "scale" if name.endswith("norm") else "kernel"
                node[leaf] = np.stack([x.T for x in found])
        if not node:
            del tree["decoder"]["layers"][name]
    return tree


def make_batch():
    """Two prompts of six and four tokens, three branches each, everything of another length."""
    rng = np.random.default_rng(0)
    prompt_valid = np.arange(6) < np.array([[6], [4]])
    branch_valid = np.arange(5) < np.array([[5, 2, 1], [3, 5, 4]])[..., None]
    no_slots = np.zeros((2, 6), bool)
    prompt = PromptTokens(rng.integers(0, VOCAB, (2, 6)), prompt_valid, no_slots)
    return prompt, BranchTokens(rng.integers(0, VOCAB, (2, 3, 5)), branch_valid)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_equals_transformers(family):
    prompt, branches = make_batch()
    model, config = theirs(family), ours(family)
    valid = branches.valid
    weights = np.where(valid, np.random.default_rng(1).normal(size=valid.shape), 0.0).astype(np.float32)
    region = (np.arange(6) < 3) & prompt.valid

    logprobs, mass, loss = np.zeros(valid.shape), np.zeros((LAYERS, *valid.shape, HEADS)), 0.0
    for b, g in np.ndindex(*valid.shape[:2]):
        start, length = prompt.valid[b].sum(), valid[b, g].sum()
        ids = torch.tensor(np.concatenate([prompt.ids[b, :start], branches.ids[b, g, :length]]))[None]
        out = model(ids, output_attentions=True)
        scores = torch.log_softmax(out.logits[0, start - 1 : -1], dim=-1)
        chosen = scores.gather(-1, ids[0, start:, None])[:, 0]
        loss = loss + (chosen * torch.tensor(weights[b, g, :length])).sum()
        logprobs[b, g, :length] = chosen.detach()
        for layer, chart in enumerate(out.attentions):
            mass[layer, b, g, :length] = chart[0, :, start:, :3].sum(-1).detach().T
    loss.backward()

    # We scale embeddings by √D on the way in and not on the way out, where a temperature makes up for it.
    root = WIDTH**0.5
    tensors = {name: x.detach().numpy() for name, x in model.named_parameters()}
    gradients = {name: x.grad.numpy() for name, x in model.named_parameters()}
    params, expected = translate(tensors, 1 / root), translate(gradients, root)

    def score(params):
        out = forward(
            config,
            params,
            None,
            prompt,
            branches,
            temperature=1 / root,
            regions=region[..., None].astype(np.float32),
            query_weights=valid.astype(np.float32),
        )
        return jnp.sum(weights * jnp.where(valid, out.logprobs, 0.0)), out

    (value, out), found = jax.jit(jax.value_and_grad(score, has_aux=True))(params)
    assert jax.tree.structure(params["decoder"]) == jax.tree.structure(abstract_parameters(config)["decoder"])
    np.testing.assert_allclose(out.logprobs[valid], logprobs[valid], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found, expected)
    np.testing.assert_allclose(out.mass[..., 0][:, valid], mass[:, valid], atol=1e-5)
