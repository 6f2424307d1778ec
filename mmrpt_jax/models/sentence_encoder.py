"""Sentence embeddings from a BERT-type encoder, read from a Hugging Face directory and run in JAX.

Reads what `sentence-transformers` models such as all-MiniLM-L6-v2 are made of: `config.json`, safetensors and
`tokenizer.json`, and, where they exist, `sentence_bert_config.json` (longest input) and `1_Pooling/config.json`.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tokenizers import Tokenizer

from mmrpt_jax.models.checkpoint_files import open_checkpoint
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.weight_table import AS_IS, TRANSPOSE, Layout, Weight

Params = dict[str, Any]

_LENGTHS = (16, 32, 64, 128, 256, 512)
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class SentenceEncoder:
    """A loaded encoder; call `encode`.

    Attributes:
        params: of the shapes of `bert_parameters`.
        tokenizer: adds the special tokens and cuts to `max_tokens`; does not pad.
        num_heads: attention heads.
        layer_norm_eps: the epsilon of every LayerNorm.
        max_tokens: longest input, special tokens included; longer texts are cut.
    """

    params: Params
    tokenizer: Tokenizer
    num_heads: int
    layer_norm_eps: float
    max_tokens: int

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Embeds texts: mean of the last layer's tokens, scaled to length 1, float32.

        Texts are sorted by length and run 32 at a time, padded to 16, 32, 64, ... tokens, so there are no
        more compilations than lengths.
        """
        encodings = self.tokenizer.encode_batch(list(texts))
        lengths = [len(encoding.ids) for encoding in encodings]
        order = np.argsort(lengths, kind="stable")
        embeddings = np.zeros((len(texts), self.params["word"].shape[1]), np.float32)
        for start in range(0, len(texts), _BATCH):
            rows = order[start : start + _BATCH]
            bucket = next((length for length in _LENGTHS if length >= lengths[rows[-1]]), self.max_tokens)
            padded = min(bucket, self.max_tokens)
            token_ids = np.zeros((_BATCH, padded), np.int32)
            mask = np.zeros((_BATCH, padded), bool)
            for slot, row in enumerate(rows):
                token_ids[slot, : lengths[row]] = encodings[row].ids
                mask[slot, : lengths[row]] = True
            embedded = sentence_embeddings(
                self.params, token_ids, mask, num_heads=self.num_heads, layer_norm_eps=self.layer_norm_eps
            )
            embeddings[rows] = embedded[: len(rows)]
        return embeddings


@functools.partial(jax.jit, static_argnames=("num_heads", "layer_norm_eps"))
def sentence_embeddings(
    params: Params,
    token_ids: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    num_heads: int,
    layer_norm_eps: float,
) -> Float[Array, "B D"]:
    """Mean of the hidden states over the tokens in `mask`, scaled to length 1; zeros for an empty row.

    Matrix products run in full float32 on every backend: reward differences inside a group are small.
    """
    with jax.default_matmul_precision("float32"):
        hidden = bert(params, token_ids, mask, num_heads=num_heads, layer_norm_eps=layer_norm_eps)
    summed = jnp.sum(hidden * mask[..., None], axis=1)
    return summed / jnp.maximum(jnp.linalg.norm(summed, axis=-1, keepdims=True), 1e-12)


def bert(
    params: Params,
    token_ids: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    num_heads: int,
    layer_norm_eps: float,
) -> Float[Array, "B T D"]:
    """Hidden states of BERT's last layer (arXiv 1810.04805): bidirectional, post-norm, exact GELU.

    Args:
        params: of the shapes of `bert_parameters`; the layers are scanned.
        token_ids: every token is of segment 0.
        mask: tokens that may be attended to.
        num_heads: attention heads.
        layer_norm_eps: the epsilon of every LayerNorm.
    """
    norm = functools.partial(_layer_norm, eps=layer_norm_eps)
    embedded = params["word"][token_ids] + params["position"][: token_ids.shape[1]] + params["segment"][0]

    def block(x: Array, layer: Params) -> tuple[Array, None]:
        query, key, value = (
            _dense(x, layer[name]).reshape(*x.shape[:2], num_heads, -1) for name in ("query", "key", "value")
        )
        attended = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
        x = norm(x + _dense(attended.reshape(x.shape), layer["out"]), layer["attention_norm"])
        inner = jax.nn.gelu(_dense(x, layer["up"]), approximate=False)
        return norm(x + _dense(inner, layer["down"]), layer["mlp_norm"]), None

    hidden, _ = jax.lax.scan(block, norm(embedded, params["norm"]), params["layers"])
    return hidden


def _dense(x: Array, params: Params) -> Array:
    return x @ params["weight"] + params["bias"]


def _layer_norm(x: Array, params: Params, *, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + eps)
    return centred * inverse_std * params["weight"] + params["bias"]


def bert_parameters(config: Mapping[str, Any]) -> Params:
    """Abstract parameters of a BERT by its `config.json`: layers stacked, matrices input × output, float32."""
    layers, width, inner = (
        config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def dense(inputs: int, outputs: int) -> Params:
        return {"weight": array(layers, inputs, outputs), "bias": array(layers, outputs)}

    def norm(*shape: int) -> Params:
        return {"weight": array(*shape), "bias": array(*shape)}

    return {
        "word": array(config["vocab_size"], width),
        "position": array(config["max_position_embeddings"], width),
        "segment": array(config["type_vocab_size"], width),
        "norm": norm(width),
        "layers": {
            **{name: dense(width, width) for name in ("query", "key", "value", "out")},
            "attention_norm": norm(layers, width),
            "up": dense(width, inner),
            "down": dense(inner, width),
            "mlp_norm": norm(layers, width),
        },
    }


# Our names of a layer's parts and Hugging Face's.
_MATRICES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_NORMS = {"attention_norm": "attention.output.LayerNorm", "mlp_norm": "output.LayerNorm"}


def bert_weights(prefix: str) -> list[Weight]:
    """The names of those parameters in a checkpoint, all of which begin with `prefix`."""
    embeddings, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer.{{layer}}."

    def both(ours: str, theirs: str, layout: Layout = AS_IS) -> list[Weight]:
        return [
            Weight(f"{ours}/weight", f"{theirs}.weight", layout),
            Weight(f"{ours}/bias", f"{theirs}.bias"),
        ]

    return [
        Weight("word", f"{embeddings}word_embeddings.weight"),
        Weight("position", f"{embeddings}position_embeddings.weight"),
        Weight("segment", f"{embeddings}token_type_embeddings.weight"),
        *both("norm", f"{embeddings}LayerNorm"),
        *(w for ours, name in _MATRICES.items() for w in both(f"layers/{ours}", layer + name, TRANSPOSE)),
        *(w for ours, name in _NORMS.items() for w in both(f"layers/{ours}", layer + name)),
    ]


def _read_bert(directory: Path, config: Mapping[str, Any]) -> Params:
    """Parameters, whether or not they are one part of a larger model; poolers and task heads stay behind."""
    prefix = "bert." if any(name.startswith("bert.") for name in open_checkpoint(directory)) else ""
    return read_weights(directory, bert_weights(prefix), bert_parameters(config), ignored=["*"])


def load_sentence_encoder(directory: str | Path) -> SentenceEncoder:
    """Loads a BERT-type sentence encoder from a Hugging Face directory.

    Raises:
        FileNotFoundError: `config.json`, `tokenizer.json` or the weights are missing.
        ValueError: the weights are not what `config.json` says, or the model is not a BERT with exact GELU and
            absolute positions, or is pooled otherwise than by the mean over tokens.
    """
    directory = Path(directory)
    for name in ("config.json", "tokenizer.json"):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory} has no {name}: expected a Hugging Face directory with safetensors"
            )
    config = _read_json(directory / "config.json")
    _check_config(config, _read_json(directory / "1_Pooling" / "config.json"), directory)
    max_tokens = int(config["max_position_embeddings"])
    limit = _read_json(directory / "sentence_bert_config.json").get("max_seq_length")
    max_tokens = min(max_tokens, limit or max_tokens)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return SentenceEncoder(
        params=_read_bert(directory, config),
        tokenizer=tokenizer,
        num_heads=config["num_attention_heads"],
        layer_norm_eps=config["layer_norm_eps"],
        max_tokens=max_tokens,
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file; an absent one is an empty dict."""
    return json.loads(path.read_text()) if path.is_file() else {}


def _check_config(config: Mapping[str, Any], pooling: Mapping[str, Any], directory: Path) -> None:
    """Raises ValueError for whatever `bert` and the mean over tokens do not compute."""
    for key, expected in {"model_type": "bert", "hidden_act": "gelu"}.items():
        if config.get(key) != expected:
            raise ValueError(
                f"{directory}/config.json: {key} is {config.get(key)!r}, only '{expected}' is supported"
            )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{directory}/config.json: only absolute position embeddings are supported")
    # Either a flag for each mode or, since sentence-transformers 6, one name.
    modes = {key for key, on in pooling.items() if key.startswith("pooling_mode_") and on}
    if modes - {"pooling_mode_mean_tokens"} or pooling.get("pooling_mode", "mean") != "mean":
        raise ValueError(f"{directory}/1_Pooling/config.json: only the mean over tokens is supported")
