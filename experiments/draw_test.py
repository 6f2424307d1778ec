"""The command that draws a user's prompts, with a tiny run and a stand-in for what draws."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import draw
from experiments.configs import lvrpo_scenes
from mmrpt_jax.models import abstract_parameters
from mmrpt_jax.models.weights import save_weights
from mmrpt_jax.stages.completion import mark_complete
from mmrpt_jax.stages.opening import unified_config
from mmrpt_jax.stages.workdir import write_identity

BENCH = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"}
CIRCLE = {"tag": "colors", "include": [], "prompt": "a red circle ."}


def tiny_config():
    config = lvrpo_scenes.get_config()
    sizes = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp": 16}
    config.model.decoder.update(sizes)
    config.model.vision.update({"image_height": 16, "image_width": 16})
    config.model.vision.transformer.update(sizes)
    config.latent.update({"autoencoder": "patch", "downsample": 4})
    config.data.drawing_lengths = (24,)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_tokenizer):
    """Folder of a run with one arm."""
    folder, config = tmp_path_factory.mktemp("run"), tiny_config()
    write_identity(config, folder)
    tiny_tokenizer.save(folder / "tokenizer.json")
    shapes = abstract_parameters(unified_config(config, tiny_tokenizer.vocab_size))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    save_weights(folder / "arms" / "lvrpo" / "weights.safetensors", params)
    mark_complete(folder / "arms" / "lvrpo", {})
    return folder


class StandIn:
    """Draws image (n, g) in the one colour (n, g, seed), and keeps what it was given."""

    def __init__(self, **fields):
        self.fields = fields
        StandIn.last = self

    def draw(self, params, texts, *, seed):
        self.params, self.texts = params, texts
        images = np.zeros((len(texts), self.fields["group_size"], 16, 16, 3), np.uint8)
        for n, g in np.ndindex(images.shape[:2]):
            images[n, g] = (n, g, seed)
        return images


@pytest.fixture
def command(monkeypatch):
    """The command's module, drawing with the stand-in."""
    monkeypatch.setattr("mmrpt_jax.stages.lvrpo.examiner.Drawer", StandIn)
    StandIn.last = None
    return draw


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(f"{json.dumps(BENCH)}\n{json.dumps(CIRCLE)}\n")
    return path


def run(command, finished, prompts, out, *more):
    return command.main([f"--workdir={finished}", f"--prompts={prompts}", f"--out={out}", *more])


def test_images_lie_where_geneval_looks(command, finished, prompts, tmp_path, capsys):
    out = tmp_path / "out"
    before = sorted(finished.rglob("*"))
    assert run(command, finished, prompts, out, "--samples=2", "--seed=7") == 0
    for n, entry in enumerate((BENCH, CIRCLE)):
        assert json.loads((out / f"{n:05d}" / "metadata.jsonl").read_text()) == entry
        for g in range(2):
            image = Image.open(out / f"{n:05d}" / "samples" / f"{g:04d}.png")
            assert image.size == (16, 16) and image.getpixel((3, 3)) == (n, g, 7)
    assert sorted(finished.rglob("*")) == before
    printed = capsys.readouterr()
    assert "2 prompts, 2 images each, drawn by lvrpo" in printed.out
    assert printed.err == (
        "warning: 1 word is unknown to the model, in 1 of 2 prompts, and spelt in pieces: bench\n"
    )


def test_what_draws_is_the_runs_without_noise(command, finished, prompts, tmp_path):
    assert run(command, finished, prompts, tmp_path / "a") == 0
    fields = StandIn.last.fields
    sampler = fields["sampler"]
    assert (sampler.kind, sampler.window, sampler.steps, sampler.guidance.text) == ("ode", None, 20, 1.0)
    assert fields["group_size"] == 4
    assert fields["batch_size"] == 48
    assert fields["model"].latent.image_size == (16, 16)
    assert (fields["coder"].size, fields["coder"].shift) == (4, 0.8)
    assert StandIn.last.texts == ["a bench", "a red circle ."]
    tokens = fields["encode"](["", "a red circle ."])
    assert tokens.ids.shape == (2, 24) and not tokens.image_slots.any()
    leaves = jax.tree.leaves(StandIn.last.params)
    assert all(leaf.sharding.mesh.size == 8 for leaf in leaves)


def test_steps_and_guidance_can_be_chosen(command, finished, prompts, tmp_path):
    assert run(command, finished, prompts, tmp_path / "a", "--steps=3", "--guidance=2.5") == 0
    sampler = StandIn.last.fields["sampler"]
    assert (sampler.steps, sampler.guidance.text) == (3, 2.5)


@pytest.mark.parametrize(
    ("flags", "text", "sentence"),
    [
        (["--arm=sft"], None, "no weights of an arm 'sft': trained are lvrpo"),
        (["--samples=0"], None, "argument --samples: 0 is less than 1"),
        (["--steps=x"], None, "argument --steps: invalid integer value: 'x'"),
        (["--stepz=3"], None, "unrecognized arguments: --stepz=3"),
        (["--workdir=nowhere"], None, "nowhere holds no finished run: there is no config.json in it"),
        ([], '{"prompt": "a"}\n{"text": "b"}', 'line 2 needs a text under "prompt"'),
        ([], '{"prompt": "' + "a " * 24 + '"}', "prompt 1 is too long"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_drawn(
    command, finished, prompts, tmp_path, capsys, flags, text, sentence
):
    if text is not None:
        prompts.write_text(text)
    assert run(command, finished, prompts, tmp_path / "out", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and sentence in line
    assert StandIn.last is None
    assert not (tmp_path / "out").exists()


def test_other_images_are_told_of_before_anything_is_drawn(command, finished, prompts, tmp_path, capsys):
    assert run(command, finished, prompts, tmp_path / "out", "--samples=1") == 0
    StandIn.last = None
    prompts.write_text(json.dumps(CIRCLE))
    assert run(command, finished, prompts, tmp_path / "out", "--samples=1") == 2
    assert "00000 belongs to other prompts" in capsys.readouterr().err
    assert StandIn.last is None


def test_a_file_is_no_folder_of_images(command, finished, prompts, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run(command, finished, prompts, tmp_path / "out") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'out'} is a file: name a folder\n"
    assert StandIn.last is None


def test_guidance_needs_a_model_that_saw_no_text(command, finished, prompts, tmp_path, capsys):
    config = json.loads((finished / "config.json").read_text())
    config["drawing"]["text_dropout"] = 0.0
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "arms"):
        (tmp_path / name).symlink_to(finished / name)
    assert run(command, tmp_path, prompts, tmp_path / "out", "--guidance=3") == 2
    assert "guidance of 3.0 steers away from a prompt without text" in capsys.readouterr().err
    assert StandIn.last is None


def test_a_run_that_does_not_draw_is_told(command, prompts, tmp_path, capsys):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert run(command, tmp_path, prompts, tmp_path / "out") == 2
    assert "a run of 'mmrpt', whose model does not draw" in capsys.readouterr().err


def test_a_mesh_for_other_devices_is_told(command, finished, prompts, tmp_path, capsys):
    config = json.loads((finished / "config.json").read_text())
    config["mesh"] = {"data": 3, "fsdp": 1, "tensor": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text((finished / "tokenizer.json").read_text())
    assert run(command, tmp_path, prompts, tmp_path / "out") == 2
    assert "does not cover the 8 devices" in capsys.readouterr().err
