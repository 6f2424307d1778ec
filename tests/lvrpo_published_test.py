"""LVRPO in miniature on a checkpoint as others publish it: begun there, drawn, answered, aligned, evaluated."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments import export
from mmrpt_jax.models import AutoencoderConfig, abstract_parameters, initialise
from mmrpt_jax.models.autoencoder import PatchAutoencoder, decode_tokens
from mmrpt_jax.models.families import bagel, flux
from mmrpt_jax.models.unified_config import LatentConfig
from mmrpt_jax.models.weight_table import flatten, match_table
from mmrpt_jax.scenes import WORLDS, render, sample_scene
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.lvrpo.examples import conditions_of, drawing_batches, question_batches
from mmrpt_jax.stages.lvrpo.finished import open_drawing_run
from mmrpt_jax.stages.lvrpo.pipeline import run_experiment
from mmrpt_jax.stages.lvrpo.validate import check_config
from mmrpt_jax.stages.mmrpt.validate import check_config as check_mmrpt
from mmrpt_jax.stages.opening import open_autoencoder, unified_config
from mmrpt_jax.stages.published import open_published
from mmrpt_jax.stages.workdir import open_run
from tests.miniature import miniature_config, miniature_lvrpo_config, miniature_published_config
from tests.published_end_to_end_test import published_config
from tests.published_folders import write_qwen2_5_vl
from tests.tiny_bagel import CHANNELS, DOWNSAMPLE, PATCH, SIDE, write_checkpoint

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
VOCAB, LATENT_SIDE = 400, 8


@pytest.fixture(scope="module")
def checkpoint(write_tokenizer, tmp_path_factory):
    """A folder of random weights with a tokenizer of bytes and an autoencoder, in the layout of BAGEL's."""
    folder = tmp_path_factory.mktemp("bagel")
    write_tokenizer(folder, special=SPECIAL, eos="<|im_end|>")
    write_checkpoint(folder, vocab=VOCAB, latent_side=LATENT_SIDE)
    config = AutoencoderConfig(width=8, multipliers=(1, 1, 1), blocks=1, channels=CHANNELS)
    leaves = flatten(initialise(config, jax.random.key(0)))
    tensors = {
        weight.theirs: np.ascontiguousarray(weight.layout.to_theirs(np.asarray(leaves[path])))
        for path, weight in match_table(flux.weight_table(config), leaves).items()
    }
    save_file(tensors, folder / "ae.safetensors")
    return folder


@pytest.fixture
def config(checkpoint, shared_folder):
    config = miniature_published_config(str(checkpoint))
    config.compilation_cache = str(shared_folder / "compiled")
    return config


@pytest.fixture(scope="module")
def finished(checkpoint, shared_folder, tmp_path_factory):
    config = miniature_published_config(str(checkpoint))
    config.compilation_cache = str(shared_folder / "compiled")
    folder = tmp_path_factory.mktemp("finished")
    run_experiment(config, str(folder))
    return folder


@pytest.fixture
def run(config, tmp_path):
    with open_run(config, tmp_path, unified_config) as run:
        yield run


def test_a_run_goes_from_the_folder_to_the_table(finished):
    rows = json.loads((finished / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["base", "lvrpo"]
    assert all(np.isfinite(row["drawn/biased"]) and np.isfinite(row["questions/biased"]) for row in rows)
    assert (finished / "drawings.png").stat().st_size > 0


def test_only_adapters_of_both_experts_learn(finished, checkpoint):
    stored = load_file(checkpoint / "ema.safetensors")
    run = open_drawing_run(finished)
    base, learned = (flatten(run.arm(arm)) for arm in ("base", "lvrpo"))
    moved = {path for path in base if not np.array_equal(base[path], learned[path])}
    assert moved and all("lora" in path for path in moved)
    assert {path.split("/")[0] for path in moved} == {"decoder", "generation"}
    query = stored["language_model.model.layers.1.self_attn.q_proj_moe_gen.weight"]
    np.testing.assert_array_equal(learned["generation/layers/query/kernel"][1], query.T)


def test_what_is_exported_can_be_begun_with(finished, checkpoint, tmp_path):
    out = tmp_path / "out"
    assert export.main(["--workdir", str(finished), "--arm", "base", "--out", str(out)]) == 0
    given, written = (open_published(str(folder)) for folder in (checkpoint, out))
    abstract = abstract_parameters(given.unified())
    jax.tree.map(np.testing.assert_array_equal, written.weights(abstract), given.weights(abstract))
    # Its own code wants every tensor, learned or not.
    tensors = [load_file(bagel.weights_file(folder)) for folder in (checkpoint, out)]
    assert tensors[0].keys() == tensors[1].keys()
    assert (out / "ae.safetensors").read_bytes() == (checkpoint / "ae.safetensors").read_bytes()


def text(run, tokens, row=0):
    ids = np.asarray(tokens.ids)[row][np.asarray(tokens.valid)[row]]
    return run.tokenizer._backend.decode(list(ids), skip_special_tokens=False)


def test_a_drawing_stands_right_behind_its_text_and_guidance_begins_at_nothing(run):
    run.config.generation.sampler.guidance = 2.0
    conditions = conditions_of(run, ["a red circle"] * 8)
    assert text(run, conditions.prompt) == "<|im_start|>a red circle<|im_end|>"
    assert not np.asarray(conditions.textless.valid).any()


def test_a_question_comes_behind_the_patches_of_its_picture(run):
    batch = next(question_batches(run)(0))
    pads = "<|image_pad|>" * SIDE**2
    asked = text(run, batch.prompt)
    assert asked.startswith(f"<|vision_start|>{pads}<|vision_end|><|im_start|>")
    assert asked.endswith("<answer>one word</answer>.<|im_end|><|im_start|>")
    assert np.asarray(batch.prompt.image_slots).sum(axis=1).tolist() == [SIDE**2] * 8
    # Pictures of 64 pixels a side are brought to the 24 that this tower has positions for.
    assert batch.images.pixels.shape == (8, SIDE**2, PATCH**2 * 3)
    ends = np.asarray(batch.branches.valid).sum(axis=-1)[:, 0] - 1
    assert (np.asarray(batch.branches.ids)[np.arange(8), 0, ends] == run.tokenizer.eos_id).all()


def test_pictures_are_enlarged_to_what_is_drawn(run):
    def shown(side):
        # Latents that are pixels can be looked at.
        latent = LatentConfig(3 * DOWNSAMPLE**2, DOWNSAMPLE, side, side)
        other = dataclasses.replace(run, model=dataclasses.replace(run.model, latent=latent))
        vars(other)["coder"] = PatchAutoencoder(DOWNSAMPLE)
        return np.asarray(decode_tokens(other.coder, next(drawing_batches(other)(0)).clean, latent))

    drawn, doubled = shown(64 // DOWNSAMPLE), shown(128 // DOWNSAMPLE)
    assert drawn.shape == (8, 1, 64, 64, 3) and doubled.shape == (8, 1, 128, 128, 3)
    for down, across in np.ndindex(2, 2):
        np.testing.assert_array_equal(doubled[:, :, down::2, across::2], drawn)


def test_the_autoencoder_is_that_of_the_folder(run, checkpoint):
    picture = render(sample_scene(WORLDS["biased"], 0, 0))
    latents = run.coder.encode(picture[None])
    assert latents.shape == (1, 64 // DOWNSAMPLE, 64 // DOWNSAMPLE, CHANNELS)
    stored = load_file(checkpoint / "ae.safetensors")["encoder.conv_in.weight"]
    np.testing.assert_array_equal(
        run.coder.params["encoder"]["conv_in"]["kernel"], stored.transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init.weights": __file__}, r"config\.init\.weights and config\.init\.hf both say where to begin"),
        ({"init.hf": "nowhere"}, r"config\.init\.hf: no directory nowhere"),
        ({"latent.autoencoder": "linear"}, r"config\.latent\.autoencoder is 'linear': .* 'kl'"),
        ({"latent.image_size": (128, 128)}, r"config\.init\.hf: images of 128x128 pixels cannot be drawn"),
        (
            {"latent.image_size": (32, 32)},
            r"config\.latent\.image_size: drawings of 32x32 pixels are not read",
        ),
        ({"data.patch_counts": ()}, r"config\.data\.patch_counts is empty"),
    ],
)
def test_a_wrong_beginning_ends_before_any_work(config, changes, message):
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_a_checkpoint_that_does_not_draw_is_told(config, write_tokenizer, tmp_path):
    config.init.hf = str(write_qwen2_5_vl(tmp_path, write_tokenizer))
    with pytest.raises(ConfigError, match=rf"config\.init\.hf: the checkpoint in {tmp_path} does not draw"):
        check_config(config)


def test_what_draws_is_not_reinforced_in_half(checkpoint):
    config = published_config(miniature_config(), checkpoint)
    with pytest.raises(ConfigError, match="draws: it is lvrpo that trains it whole"):
        check_mmrpt(config)


def test_what_understands_is_read_alone(checkpoint):
    published = open_published(str(checkpoint))
    read = published.weights(abstract_parameters(published.model))
    whole = published.weights(abstract_parameters(published.unified()))
    assert read.keys() == whole.keys() - {"generation", "latents"}
    jax.tree.map(np.testing.assert_array_equal, read, {name: whole[name] for name in read})


# An autoencoder of convolutions, for a model that is trained here.


@pytest.fixture
def own_config(checkpoint):
    config = miniature_lvrpo_config()
    config.init.autoencoder = str(checkpoint / "ae.safetensors")
    config.latent.update(autoencoder="kl", downsample=DOWNSAMPLE, channels=CHANNELS)
    return config


def test_a_model_of_our_own_may_draw_its_latents(own_config, tmp_path):
    check_config(own_config)
    coder, latent = open_autoencoder(own_config, tmp_path), unified_config(own_config, 99).latent
    assert (
        (coder.channels, coder.downsample) == (latent.channels, latent.downsample) == (CHANNELS, DOWNSAMPLE)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"latent.channels": 16},
            r"config\.latent: channels is 16 and downsample 4, those of .* are 3 and 4",
        ),
        ({"init.autoencoder": ""}, r"'kl' needs trained weights: name their file"),
        (
            {"init.autoencoder": "ema.safetensors"},
            r"config\.init\.autoencoder: this is no autoencoder of FLUX's",
        ),
    ],
)
def test_one_that_does_not_fit_is_told(own_config, checkpoint, changes, message):
    name = changes.get("init.autoencoder")
    own_config.update_from_flattened_dict(
        changes | ({"init.autoencoder": str(checkpoint / name)} if name else {})
    )
    with pytest.raises(ConfigError, match=message):
        check_config(own_config)
