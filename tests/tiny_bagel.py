"""A folder laid out as BAGEL's is, with a model that a test can afford; names and shapes are written out by hand."""

import json

import numpy as np
from safetensors.numpy import save_file

VOCAB = 80
WIDTH, HEADS, KV_HEADS, LAYERS, MLP = 32, 4, 2, 2, 40
TOWER_WIDTH, TOWER_MLP, PATCH, SIDE = 24, 28, 4, 6
CHANNELS, PACK, DOWNSAMPLE, MAX_LATENT_SIZE = 3, 2, 4, 5
LLM = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
}
VIT = {
    "hidden_size": TOWER_WIDTH,
    "intermediate_size": TOWER_MLP,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "image_size": SIDE * PATCH,
}
# The size that BAGEL's code has by default, which is not that of these weights.
WHOLE = {"max_latent_size": 32, "vae_config": {"z_channels": CHANNELS, "downsample": DOWNSAMPLE}}
EXPERTS = ("", "_moe_gen")


def tensor_shapes(vocab, latent_side):
    """Names and shapes of all tensors, written out."""
    shapes = {
        "language_model.model.embed_tokens.weight": (vocab, WIDTH),
        "language_model.lm_head.weight": (vocab, WIDTH),
        "latent_pos_embed.pos_embed": (latent_side**2, WIDTH),
        "vit_pos_embed.pos_embed": (SIDE**2, WIDTH),
        "vit_model.vision_model.embeddings.position_embedding.weight": (SIDE**2, TOWER_WIDTH),
    }
    linears = {
        "vae2llm": (WIDTH, PACK**2 * CHANNELS),
        "llm2vae": (PACK**2 * CHANNELS, WIDTH),
        "time_embedder.mlp.0": (WIDTH, 256),
        "time_embedder.mlp.2": (WIDTH, WIDTH),
        "connector.fc1": (WIDTH, TOWER_WIDTH),
        "connector.fc2": (WIDTH, WIDTH),
        "vit_model.vision_model.embeddings.patch_embedding": (TOWER_WIDTH, PATCH**2 * 3),
    }
    norms = {"vit_model.vision_model.post_layernorm": TOWER_WIDTH}
    for layer in range(2):
        name = f"vit_model.vision_model.encoder.layers.{layer}."
        linears |= {
            f"{name}self_attn.{part}_proj": (TOWER_WIDTH, TOWER_WIDTH) for part in ("q", "k", "v", "out")
        }
        linears |= {f"{name}mlp.fc1": (TOWER_MLP, TOWER_WIDTH), f"{name}mlp.fc2": (TOWER_WIDTH, TOWER_MLP)}
        norms |= {f"{name}layer_norm{part}": TOWER_WIDTH for part in (1, 2)}
    head = WIDTH // HEADS
    for expert in EXPERTS:
        shapes[f"language_model.model.norm{expert}.weight"] = (WIDTH,)
        for layer in range(LAYERS):
            name = f"language_model.model.layers.{layer}."
            attention = f"{name}self_attn."
            for part, count in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
                linears[f"{attention}{part}_proj{expert}"] = (count * head, WIDTH)
            for part in "qk":
                shapes[f"{attention}{part}_norm{expert}.weight"] = (head,)
            shapes[f"{attention}o_proj{expert}.weight"] = (WIDTH, WIDTH)
            for part in ("input", "post_attention"):
                shapes[f"{name}{part}_layernorm{expert}.weight"] = (WIDTH,)
            for part in ("gate", "up"):
                shapes[f"{name}mlp{expert}.{part}_proj.weight"] = (MLP, WIDTH)
            shapes[f"{name}mlp{expert}.down_proj.weight"] = (WIDTH, MLP)
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def table_of_positions(side):
    """Half of the features for the column, half for the row; sin, then cos."""
    frequencies = 10_000.0 ** -(np.arange(WIDTH // 4) / (WIDTH // 4))
    rows, columns = np.divmod(np.arange(side**2), side)
    parts = [
        function(np.outer(place, frequencies)) for place in (columns, rows) for function in (np.sin, np.cos)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def write_checkpoint(folder, *, vocab=VOCAB, latent_side=MAX_LATENT_SIZE):
    """Writes weights and numbers of a random model, which draws squares of up to `latent_side` tokens a side."""
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in tensor_shapes(vocab, latent_side).items():
        centre = 1.0 if name.endswith("weight") and len(shape) == 1 else 0.0
        tensors[name] = (centre + 0.25 * rng.normal(size=shape)).astype(np.float32)
    tensors["latent_pos_embed.pos_embed"] = table_of_positions(latent_side)
    tensors["vit_pos_embed.pos_embed"] = table_of_positions(SIDE)
    save_file(tensors, folder / "ema.safetensors")
    for name, content in (
        ("llm_config", LLM | {"vocab_size": vocab}),
        ("vit_config", VIT),
        ("config", WHOLE),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
