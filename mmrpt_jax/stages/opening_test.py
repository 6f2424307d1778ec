import dataclasses

import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.tokenizer import train_tokenizer
from mmrpt_jax.stages.opening import model_config, open_source, open_tokenizer, unified_config

# Everything trains, in float32.
PLAIN = {
    "frozen": (),
    "param_dtype": "float32",
    "compute_dtype": "float32",
    "attention": "xla",
    "remat": "none",
    "lora": {"rank": 0},
}
OWN = {"init": {"hf": ""}, "train": PLAIN}
DATA = {"kind": "scenes", "world": "biased", "records": 5, "path": "", "split": "train"}


def test_scenes_as_training_records():
    config = ConfigDict({"seed": 1, "data": DATA})
    source = open_source(config, captions=2)
    assert len(source) == 5 and len(source[0]["captions"]) == 2
    assert len(open_source(config, captions=1, size=7)) == 7
    config.seed = 2
    assert open_source(config, captions=2)[0]["images"] != source[0]["images"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [("tables", "is 'scenes' or 'records', not 'tables'"), ("records", "data.path must name")],
)
def test_unknown_data_is_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        open_source(ConfigDict({"seed": 1, "data": DATA | {"kind": kind}}), captions=1)


def test_the_tokenizer_is_kept_with_the_run(tmp_path):
    config = ConfigDict(
        {
            "seed": 0,
            "wording": dataclasses.asdict(Wording()),
            "data": DATA,
            "init": {"tokenizer": "", "hf": ""},
            "tokenizer": {"vocab_size": 300},
        }
    )
    trained = open_tokenizer(config, tmp_path)
    assert trained.vocab_size == 300
    # Found again in the folder, whatever the config says now.
    config.tokenizer.vocab_size = 280
    assert open_tokenizer(config, tmp_path).vocab_size == 300
    shipped = tmp_path / "shipped.json"
    train_tokenizer(["one"], vocab_size=265).save(shipped)
    config.init.tokenizer = str(shipped)
    (tmp_path / "other").mkdir()
    assert open_tokenizer(config, tmp_path / "other").vocab_size == 265
    assert (tmp_path / "other" / "tokenizer.json").read_bytes() == shipped.read_bytes()


def test_model_config_of_a_config():
    sizes = {"width": 8, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "mlp": 8}
    vision = {"image_height": 16, "image_width": 32, "patch_size": 8, "transformer": sizes}
    model = model_config(ConfigDict(OWN | {"model": {"decoder": sizes, "vision": vision}}), 99)
    assert (model.vocab_size, model.decoder.width, model.vision.grid) == (99, 8, (2, 4))
    # Patches have learned positions, words rotary ones.
    assert model.vision.transformer.rope is None and model.decoder.rope is not None


def test_unified_config_of_a_config():
    sizes = {"width": 8, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "mlp": 8}
    vision = {"image_height": 16, "image_width": 32, "patch_size": 8, "transformer": sizes}
    latent = {"autoencoder": "patch", "downsample": 4, "pack": 2, "experts": "moe", "prediction": "data"}
    config = ConfigDict(OWN | {"model": {"decoder": sizes, "vision": vision}, "latent": latent})
    model = unified_config(config, 99)
    assert model.vlm == model_config(config, 99) and model.experts == "moe"
    # A latent is a square of 4 x 4 pixels of three colours, a token four of them.
    assert (model.latent.grid, model.latent.image_size, model.latent.features) == ((2, 4), (16, 32), 4 * 48)
    assert model.latent.prediction == "data"
    # A linear autoencoder has as many numbers for the square as it is told.
    config.latent.update(autoencoder="linear", channels=7)
    assert unified_config(config, 99).latent.features == 4 * 7
