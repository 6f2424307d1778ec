import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.scene_source import png
from mmrpt_jax.masking import GREY
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.mmrpt.fill import known_gain, prompt_batches, supervised_batches
from mmrpt_jax.stages.run import Run


@pytest.fixture
def run(tmp_path, tiny_processor, tiny_model):
    config = ConfigDict(
        {
            "seed": 0,
            "wording": dataclasses.asdict(Wording()),
            "data": {"augment": "none", "prompt_lengths": (16, 24), "branch_lengths": (16,)},
            "fill": {"think": "none"},
            "rl": {"visual_gain": {"of": "surprise", "cap": 2.0}},
        }
    )
    return Run(config, tmp_path, tiny_processor, tiny_model, None, make_mesh())


@pytest.fixture
def source():
    """Eight red records, the i-th with a mask over the i-th word."""
    words = ["a", "red", "circle", "is", "above", "the", "blue", "square"]
    images = [png(np.full((16, 16, 3), (200, 0, 0), np.uint8))]
    return [
        {
            "id": str(i),
            "images": images,
            "masked": [" ".join([*words[:i], "[MASK]", *words[i + 1 :]])],
            "answer": [words[i]],
            "sentence": [" ".join(words)],
            "blind_logprob": np.float32([-i]),
            "span_llr": np.float32([i / 4]),
            "hidden_patches": np.array([], int),
        }
        for i in range(8)
    ]


@pytest.mark.parametrize(
    ("think", "thought"), [("none", ""), ("sentence", "a red circle is above the blue square")]
)
def test_supervised_batches_hold_the_true_completions(run, source, think, thought):
    run.config.fill.think = think
    run.config.data.branch_lengths = (32,)
    batch = next(supervised_batches(run, source, blank_images=False, batch_size=8)(0))
    texts = [
        run.tokenizer.decode(ids[valid]) for ids, valid in zip(*map(np.asarray, batch.branches), strict=True)
    ]
    prompts = [
        run.tokenizer.decode(ids[ids != run.tokenizer.image_id]) for ids in np.asarray(batch.prompt.ids)
    ]
    found = {(prompt.split(" : ")[1], text) for prompt, text in zip(prompts, texts, strict=True)}
    form = (
        f"<think> {thought}</think><answer> {{}}</answer>"
        if thought
        else "<think></think><answer> {}</answer>"
    )
    assert found == {(row["masked"][0], form.format(row["answer"][0])) for row in source}
    assert not np.asarray(batch.blind).any()
    np.testing.assert_array_equal(np.asarray(batch.images)[0, 0, 0, 0], [200, 0, 0])


def test_prompts_come_with_what_rewards_read(run, source):
    batch = next(prompt_batches(run, source, blank_images=True, batch_size=8)(0))
    assert sorted(batch.columns["id"]) == [row["id"] for row in source]
    for i, text, masked, answer, gain in zip(
        map(int, batch.columns["id"]),
        batch.texts,
        batch.columns["masked"],
        batch.columns["answer"],
        batch.columns["visual_gain"],
        strict=True,
    ):
        assert (masked, answer) == (source[i]["masked"][0], source[i]["answer"][0])
        assert text.endswith(masked)
        # p(span | no image) = e^-i.
        assert gain == pytest.approx(1 - np.exp(-i), rel=1e-5)
    # Blank images are grey throughout.
    assert (np.asarray(batch.images) == GREY).all()
    # Every device holds its share of the prompts.
    assert {shard.data.shape for shard in batch.prompt.ids.addressable_shards} == {(1, 24)}


def test_gains_that_stage_2_knows(run):
    batch = {"blind_logprob": np.log([0.5, 1.0]), "span_llr": np.array([-1.0, 1.0, 3.0])}
    np.testing.assert_allclose(known_gain(run, batch)["visual_gain"], [0.5, 0.0])
    run.config.rl.visual_gain.of = "span"
    # Clipped to [0, 1] of a cap of 2 nats.
    assert known_gain(run, batch) == {"visual_gain": [0.0, 0.5, 1.0]}
    run.config.rl.visual_gain.of = "answer"
    assert known_gain(run, batch) == {}
