import dataclasses
import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.assets import SCENES_TOKENIZER
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.scene_source import SceneSource
from mmrpt_jax.data.tokenizer import EOS, load_tokenizer
from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.captions import caption_batches
from mmrpt_jax.stages.opening import fixed_processor
from mmrpt_jax.stages.run import Run

SCENES = 24


@pytest.fixture
def run(tmp_path):
    data = {"kind": "scenes", "world": "biased", "augment": "none", "records": 2, "caption_records": SCENES}
    lengths = {"prompt_lengths": (12,), "caption_lengths": (48,)}
    caption = {"batch_size": 8, "captions_per_image": 2, "image_dropout": 0.25}
    tokenizer = load_tokenizer(str(SCENES_TOKENIZER))
    sizes = TransformerConfig(width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8)
    model = VLMConfig(tokenizer.vocab_size, sizes, VisionConfig(64, 64, 32, sizes))
    wording = dataclasses.asdict(Wording())
    sections = {"data": data | lengths, "caption": caption, "wording": wording}
    config = ConfigDict({"seed": 1, "model": {"vision": dataclasses.asdict(model.vision)}, **sections})
    return Run(config, tmp_path, fixed_processor(config, tokenizer), model, None, make_mesh())


def take(run, count, *, suffix="", step=0):
    return jax.device_get(list(itertools.islice(caption_batches(run, suffix)(step), count)))


def decoded(run, ids, valid):
    return [run.tokenizer.decode(row[keep]) for row, keep in zip(ids, valid, strict=True)]


def test_captions_are_those_of_their_image(run):
    source = SceneSource("biased", split="train", stream=1, size=SCENES, captions=2)
    captions = {decode_image(*record["images"]).tobytes(): record["captions"] for record in source}
    assert len(captions) == SCENES
    seen = []
    for batch in take(run, 3):
        assert batch.images.shape == (8, 1, 64, 64, 3)
        for image, ids, valid in zip(batch.images[:, 0], *batch.branches, strict=True):
            assert sorted(decoded(run, ids, valid)) == sorted(captions[image.tobytes()])
            assert (ids[np.arange(2), valid.sum(-1) - 1] == run.tokenizer.eos_id).all()
            seen.append(image.tobytes())
        words = batch.prompt.valid & ~batch.prompt.image_slots
        assert decoded(run, batch.prompt.ids, words) == ["describe the image :"] * 8
        # A quarter of the images is hidden.
        assert batch.blind.sum() == 2
    assert sorted(seen) == sorted(captions)


def test_prompts_have_a_place_for_every_image(run, monkeypatch):
    scenes = SceneSource("biased", split="train", size=8)
    images = [image for record in scenes for image in record["images"]]
    source = [record | {"images": images[: i % 3], "captions": [str(i)]} for i, record in enumerate(scenes)]
    monkeypatch.setattr(Run, "source", lambda *_, **__: source)
    run.config.caption.captions_per_image = 1
    (batch,) = take(run, 1)
    assert batch.images.shape == (8, 2, 64, 64, 3)
    for row, tokens in enumerate(batch.prompt.image_slots.sum(axis=1)):
        (caption,) = decoded(run, batch.branches.ids[row], batch.branches.valid[row])
        # An image has four visual tokens.
        assert tokens == 4 * (int(caption.removesuffix(EOS)) % 3)


def test_every_device_holds_its_share(run):
    for array in jax.tree.leaves(next(caption_batches(run, "")(0))):
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {1}


def test_batches_are_a_function_of_stream_and_step(run):
    whole, (resumed,), (other,) = take(run, 3), take(run, 1, step=2), take(run, 1, suffix="_control")
    jax.tree.map(np.testing.assert_array_equal, whole[2], resumed)
    assert (other.images != whole[0].images).any()
