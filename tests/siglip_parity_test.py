"""SigLIP as a reward encoder against `transformers`: same directory, same embeddings of images and texts.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import json

import numpy as np
import pytest
import transformers
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.families import siglip
from mmrpt_jax.rewards.semantic_image import image_text_cosine
from mmrpt_jax.stages.lvrpo.rewards import open_encoder
from mmrpt_jax.stages.lvrpo.siglip_encoder import load_siglip
from tests.family_parity import save_random, torch

LENGTH = 6
TOWER = dict(hidden_size=16, intermediate_size=24, num_attention_heads=2)
TEXT = TOWER | dict(num_hidden_layers=2, vocab_size=20, max_position_embeddings=LENGTH, pad_token_id=0)
# 14 pixels are 3 patches, and 2 pixels that are not looked at.
VISION = TOWER | dict(num_hidden_layers=3, image_size=14, patch_size=4)
TEXTS = ["A red circle", "a blue square above a red circle in a blue square", "", "circle"]
SIZES = [(14, 14), (9, 30), (40, 17), (14, 20)]


@pytest.fixture(scope="module", params=["left", "right"])
def directory(request, tmp_path_factory):
    """Both sides of padding: the last token, which speaks for the text, is a word or not."""
    folder = tmp_path_factory.mktemp(request.param)
    words = ["<pad>", "<unk>", "a", "red", "blue", "circle", "square", "above", "in"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Strip()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", padding_side=request.param
    )
    wrapped.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 14, "width": 14}, resample=2).save_pretrained(folder)
    save_random(
        transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)), folder
    )
    return folder


@pytest.fixture(scope="module")
def theirs(directory):
    return transformers.SiglipModel.from_pretrained(directory).eval()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def expected(theirs, directory, images):
    """Their embeddings of images and texts, prepared by their processors."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    lowered = [text.lower() for text in TEXTS]
    ids = tokenizer(lowered, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    processor = SiglipImageProcessorPil.from_pretrained(directory)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="np")["pixel_values"]
    with torch.no_grad():
        seen = theirs.get_image_features(torch.tensor(np.stack(pixels))).pooler_output.numpy()
        read = theirs.get_text_features(ids["input_ids"]).pooler_output.numpy()
    return seen, read


def test_embeddings(directory, images, expected):
    encoder = load_siglip(directory)
    for found, wanted in zip(
        (encoder.encode_images(images), encoder.encode_texts(TEXTS)), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        assert np.ptp(wanted, axis=0).max() > 0.1


def test_the_reward_is_their_cosine(directory, images, expected):
    name = f"mmrpt_jax.stages.lvrpo.siglip_encoder:load_siglip:{directory}"
    seen, read = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in expected)
    cosines = image_text_cosine(open_encoder(name), images, TEXTS)
    np.testing.assert_allclose(cosines, (seen * read).sum(axis=-1), atol=1e-5)


def test_patches_and_tokens_lie_in_the_space_of_the_embeddings(theirs, directory, images):
    encoder = load_siglip(directory)
    processor = SiglipImageProcessorPil.from_pretrained(directory)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="np")["pixel_values"]
    with torch.no_grad():
        hidden = theirs.vision_model(torch.tensor(np.stack(pixels))).last_hidden_state
        alone = theirs.vision_model.head(hidden.reshape(-1, 1, hidden.shape[-1])).reshape(hidden.shape)
    np.testing.assert_allclose(np.stack(encoder.encode_patches(images)), alone.numpy(), atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokens, whole = encoder.encode_tokens(TEXTS), encoder.encode_texts(TEXTS)
    assert [len(rows) for rows in tokens] == [
        min(len(tokenizer(text.lower())["input_ids"]), LENGTH) for text in TEXTS
    ]
    # Where padding stands to the left, the last word is the last token, which speaks for the text.
    if tokenizer.padding_side == "left":
        for rows, embedding in zip(tokens, whole, strict=True):
            np.testing.assert_allclose(rows[-1:], embedding[None][: len(rows)], atol=1e-6)


def test_many_are_embedded_in_batches(directory, images):
    encoder = load_siglip(directory)
    many = encoder.encode_images(images * 10)
    np.testing.assert_allclose(many, np.tile(encoder.encode_images(images), (10, 1)), atol=1e-6)


def test_weights_come_back_bit_for_bit(theirs, directory, tmp_path):
    encoder = load_siglip(directory)
    write_weights(tmp_path, siglip.weight_table(encoder.config), encoder.params)
    stored = load_file(directory / "model.safetensors")
    written = load_file(tmp_path / "model.safetensors")
    assert stored.keys() - written.keys() == {"logit_scale", "logit_bias"}
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, stored[name], err_msg=name)


def test_what_a_config_leaves_out():
    """SigLIP 2's files say little; `transformers` knows the rest."""
    brief = {
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", "vocab_size": 256_000},
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 256},
    }
    config = siglip.model_config(json.loads(json.dumps(brief)))
    assert config == siglip.model_config(transformers.SiglipConfig(**brief).to_dict())
    assert (config.num_patches, config.text_length) == (256, 64)
