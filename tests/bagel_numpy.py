"""BAGEL read once more, in plain NumPy and float64: one packed sample, a dense mask, every token routed by a flag.

It shares nothing with `mmrpt_jax`: weights go by the names of the checkpoint, positions are looked up in its own
tables, sizes come from its JSON files.
"""

from typing import NamedTuple

import numpy as np

TOWER = "vit_model.vision_model."
MODEL = "language_model.model."


class Text(NamedTuple):
    """Words, each at a position of its own."""

    ids: list[int]


class Picture(NamedTuple):
    """An image [h w 3] of bytes, between its marks, through the tower."""

    pixels: np.ndarray


class Noise(NamedTuple):
    """Noisy latents [I features] of a grid of tokens at one time, between their marks."""

    latents: np.ndarray
    rows: int
    columns: int
    time: float


class Bagel(NamedTuple):
    """A checkpoint.

    Attributes:
        weights: by name.
        llm: `llm_config.json`.
        vit: `vit_config.json`.
        marks: ids of the tokens around an image.
    """

    weights: dict
    llm: dict
    vit: dict
    marks: tuple[int, int]

    def linear(self, name, x):
        """Torch's way: [out in]."""
        bias = self.weights.get(f"{name}.bias", np.zeros(1))
        return x @ self.weights[f"{name}.weight"].astype(np.float64).T + bias

    def rms_norm(self, name, x):
        """Over the last axis."""
        return (
            x
            / np.sqrt((x**2).mean(-1, keepdims=True) + self.llm["rms_norm_eps"])
            * self.weights[f"{name}.weight"]
        )

    def layer_norm(self, name, x):
        """Likewise, with mean and bias."""
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def words(self, ids):
        """Embeddings, not scaled."""
        return self.weights[f"{MODEL}embed_tokens.weight"][np.array(ids, int)].astype(np.float64)


def gelu_tanh(x):
    """GELU as its usual approximation."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    """Also known as swish."""
    return x / (1 + np.exp(-x))


def softmax(scores, allowed):
    """Over the allowed keys."""
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * allowed
    return weights / weights.sum(-1, keepdims=True)


def heads_of(x, count):
    """[N T H]."""
    return x.reshape(len(x), count, -1).swapaxes(0, 1)


def see(bagel, pixels):
    """Visual tokens of an image, and their places in tables of square grids."""
    patch, heads = bagel.vit["patch_size"], bagel.vit["num_attention_heads"]
    rows, columns = pixels.shape[0] // patch, pixels.shape[1] // patch
    cut = [
        (pixels[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] / 255 - 0.5) / 0.5
        for r in range(rows)
        for c in range(columns)
    ]
    table = bagel.weights[f"{TOWER}embeddings.position_embedding.weight"]
    places = grid_places(rows, columns, len(table))
    x = bagel.linear(f"{TOWER}embeddings.patch_embedding", np.stack([piece.reshape(-1) for piece in cut]))
    x = x + table[places]
    # `num_hidden_layers` less one: the features of the last layer but one are used.
    for layer in range(bagel.vit["num_hidden_layers"] - 1):
        name = f"{TOWER}encoder.layers.{layer}."
        normed = bagel.layer_norm(f"{name}layer_norm1", x)
        q, k, v = (heads_of(bagel.linear(f"{name}self_attn.{part}_proj", normed), heads) for part in "qkv")
        weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), 1.0)
        seen = (weights @ v).swapaxes(0, 1).reshape(len(x), -1)
        x = x + bagel.linear(f"{name}self_attn.out_proj", seen)
        inner = gelu_tanh(bagel.linear(f"{name}mlp.fc1", bagel.layer_norm(f"{name}layer_norm2", x)))
        x = x + bagel.linear(f"{name}mlp.fc2", inner)
    x = bagel.layer_norm(f"{TOWER}post_layernorm", x)
    x = bagel.linear("connector.fc2", gelu_tanh(bagel.linear("connector.fc1", x)))
    return x + bagel.weights["vit_pos_embed.pos_embed"][places]


def grid_places(rows, columns, table):
    """Row times the side of the square table, plus column."""
    side = round(table**0.5)
    return np.array([r * side + c for r in range(rows) for c in range(columns)])


def embed_noise(bagel, noise):
    """Latents, their time and their places, added up."""
    frequencies = np.exp(-np.log(10_000) * np.arange(128) / 128)
    angles = noise.time * frequencies
    time = np.concatenate([np.cos(angles), np.sin(angles)])
    time = bagel.linear("time_embedder.mlp.2", silu(bagel.linear("time_embedder.mlp.0", time)))
    table = bagel.weights["latent_pos_embed.pos_embed"]
    places = grid_places(noise.rows, noise.columns, len(table))
    return bagel.linear("vae2llm", noise.latents.astype(np.float64)) + time + table[places]


def allowed_by(splits):
    """allowed[query, key]: text is causal; an image sees itself and what stands before; no later token sees noise."""
    split = np.repeat(np.arange(len(splits)), [length for length, _ in splits])
    mode = np.array([kind for length, kind in splits for _ in range(length)])
    query, key = np.indices((len(split), len(split)))
    same = split[query] == split[key]
    return ((query >= key) | (same & (mode[key] != "causal"))) & ((mode[key] != "noise") | same)


def run(bagel, segments):
    """Logits of all tokens [T V], and the velocities of each noise in turn."""
    tokens, positions, drawn, splits, position = [], [], [], [], 0
    for segment in segments:
        if isinstance(segment, Text):
            tokens.append(bagel.words(segment.ids))
            positions += range(position, position + len(segment.ids))
            drawn += [False] * len(segment.ids)
            splits.append((len(segment.ids), "causal"))
            position += len(segment.ids)
            continue
        noisy = isinstance(segment, Noise)
        inside = embed_noise(bagel, segment) if noisy else see(bagel, segment.pixels)
        start, end = bagel.words(bagel.marks)
        tokens.append(np.concatenate([start[None], inside, end[None]]))
        positions += [position] * (len(inside) + 2)
        drawn += [False, *[noisy] * len(inside), False]
        splits.append((len(inside) + 2, "noise" if noisy else "full"))
        position += not noisy
    drawn = np.array(drawn)
    hidden = decode(bagel, np.concatenate(tokens), np.array(positions), drawn, allowed_by(splits))
    flows = bagel.linear("llm2vae", hidden[drawn])
    sizes = [len(segment.latents) for segment in segments if isinstance(segment, Noise)]
    return bagel.linear("language_model.lm_head", hidden), np.split(flows, np.cumsum(sizes)[:-1])


def decode(bagel, x, positions, drawn, allowed):
    """The decoder: both experts on every token, and each token takes what is its own."""
    heads, kv_heads = bagel.llm["num_attention_heads"], bagel.llm["num_key_value_heads"]

    def routed(function, x, name, rest=""):
        own = drawn.reshape(-1, *[1] * (x.ndim - 1))
        return np.where(own, function(f"{name}_moe_gen{rest}", x), function(f"{name}{rest}", x))

    def rotated(x):
        half = x.shape[-1] // 2
        angles = positions[:, None, None] / bagel.llm["rope_theta"] ** (np.arange(half) / half)
        angles = np.concatenate([angles, angles], axis=-1)
        return x * np.cos(angles) + np.concatenate([-x[..., half:], x[..., :half]], axis=-1) * np.sin(angles)

    for layer in range(bagel.llm["num_hidden_layers"]):
        name = f"{MODEL}layers.{layer}."
        normed = routed(bagel.rms_norm, x, f"{name}input_layernorm")
        q, k, v = (
            routed(bagel.linear, normed, f"{name}self_attn.{part}_proj").reshape(len(x), count, -1)
            for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = (
            rotated(routed(bagel.rms_norm, y, f"{name}self_attn.{part}_norm"))
            for y, part in ((q, "q"), (k, "k"))
        )
        k, v = (np.repeat(y, heads // kv_heads, axis=1) for y in (k, v))
        weights = softmax(np.einsum("qnh,knh->nqk", q, k) / np.sqrt(q.shape[-1]), allowed)
        seen = np.einsum("nqk,knh->qnh", weights, v).reshape(len(x), -1)
        x = x + routed(bagel.linear, seen, f"{name}self_attn.o_proj")
        normed = routed(bagel.rms_norm, x, f"{name}post_attention_layernorm")
        gate, up = (routed(bagel.linear, normed, f"{name}mlp", f".{part}_proj") for part in ("gate", "up"))
        x = x + routed(bagel.linear, silu(gate) * up, f"{name}mlp", ".down_proj")
    return routed(bagel.rms_norm, x, f"{MODEL}norm")
