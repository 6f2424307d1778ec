import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from mmrpt_jax.assets import SCENES_TOKENIZER
from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.data.prompts import Wording
from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models.autoencoder import decode_tokens
from mmrpt_jax.models.sharding import MESH_AXES, make_mesh
from mmrpt_jax.scenes import read, strict
from mmrpt_jax.stages.lvrpo.examples import (
    conditions_of,
    drawing_batches,
    prompts_to_draw,
    question_batches,
    questions_to_answer,
)
from mmrpt_jax.stages.opening import fixed_processor, unified_config
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.drawing import DrawingBatch

SCENES = 48


# Everything trains, in float32.
PLAIN = {
    "frozen": (),
    "param_dtype": "float32",
    "compute_dtype": "float32",
    "attention": "xla",
    "remat": "none",
    "max_skipped": 10,
    "gather_to_sample": False,
    "lora": {"rank": 0},
}


def tiny_config() -> ConfigDict:
    """The sections that training reads, for one layer of width 16 that draws four tokens of 32 x 32 pixels."""
    sizes = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 16}
    vision = {"image_height": 64, "image_width": 64, "patch_size": 32, "transformer": sizes}
    imitation = {"learning_rate": 1e-2, "learning_rate_warmup": 0, "weight_decay": 0.0}
    advantage = {"combine": "sum_then_normalise", "scale": "group", "min_std": 0.0}
    sampler = {"kind": "flow_sde", "steps": 3, "shift": 1.0, "noise_level": 0.7, "window": (0, 2)}
    guidance = {"guidance": 1.0, "guidance_interval": (0.0, 1.0), "renorm": "global"}
    return ConfigDict(
        {
            "seed": 3,
            "log_every": 1,
            "save_every": 100,
            "init": {"weights": "", "understanding": "", "autoencoder": "", "hf": ""},
            "model": {"decoder": sizes, "vision": vision},
            "train": PLAIN,
            "latent": {
                "experts": "mot",
                "autoencoder": "patch",
                "downsample": 16,
                "pack": 2,
                "prediction": "data",
                "shift": 0.8,
                "scale": 3.0,
            },
            "wording": dataclasses.asdict(Wording()),
            "data": {
                "kind": "scenes",
                "world": "biased",
                "augment": "none",
                "scenes": SCENES,
                "caption_records": SCENES,
                "prompt_lengths": (40,),
                "drawing_lengths": (20,),
                "caption_lengths": (48,),
                "branch_lengths": (8,),
            },
            "caption": {"batch_size": 8, "captions_per_image": 2, "image_dropout": 0.25},
            "question": {"batch_size": 8},
            "drawing": {"batch_size": 8, "repeats": 1, "text_dropout": 0.0, "shift": 1.0},
            "pretrain": {
                "steps": 2,
                **imitation,
                "weights": {"captions": 1.0, "questions": 1.0, "drawings": 1.0},
            },
            "align": {
                "learning_rate": 1e-2,
                "learning_rate_warmup": 0,
                "updates_per_rollout": 1,
                "reward_timeout": 60.0,
                "sheet_every": 0,
                "weights": {"understanding": 1.0, "generation": 1.0},
            },
            "understanding": {
                "prompts_per_step": 2,
                "oversample": 1,
                "rollout_parts": 1,
                "group_size": 4,
                "temperature": 0.8,
                "micro_batches": 1,
                "packed_lengths": (),
                "drop_zero_variance": False,
                "rewards": {"exact_match": 1.0, "format": 0.0},
                "advantage": advantage,
                "loss": {"variant": "dapo", "kl": "none", "kl_coefficient": 0.0, "entropy_coefficient": 0.0},
            },
            "generation": {
                "prompts_per_step": 2,
                "oversample": 2,
                "rollout_parts": 2,
                "group_size": 4,
                "micro_batches": 1,
                "drop_zero_variance": True,
                "same_noise": False,
                "sampler": {**sampler, **guidance, "reduce": "mean"},
                "rewards": {"instruction_strict": 0.0, "prompt_likelihood": 1.0, "knowledge": 0.0},
                "encoder": "",
                "grounding": {"pooling": "max"},
                "questions_at_a_time": 8,
                "advantage": advantage,
                "algorithm": "grpo",
                "losses": {
                    "grpo": {"clip_low": 1e-4, "clip_high": 1e-4, "kl": "velocity", "kl_coefficient": 0.1},
                    "nft": {"beta": 1.0, "kl": "velocity", "kl_coefficient": 0.1},
                    "dpo": {"beta": 10.0},
                    "rwr": {"temperature": 0.2},
                    "best_of": {},
                },
            },
        }
    )


def one_device() -> Mesh:
    """What is compiled for one device is compiled sooner."""
    return jax.make_mesh((1, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:1])


def make_run(folder: Path, *, config: ConfigDict | None = None, writer=None, mesh: Mesh | None = None) -> Run:
    """A run of `tiny_config`, with the shipped tokenizer."""
    config, tokenizer = config or tiny_config(), load_tokenizer(str(SCENES_TOKENIZER))
    model = unified_config(config, tokenizer.vocab_size)
    processor = fixed_processor(config, tokenizer)
    return Run(config, folder, processor, model, writer, mesh or make_mesh())


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def texts_of(run, tokens):
    """What the rows of tokens say, images left out."""
    keep = np.asarray(tokens.valid) & ~np.asarray(getattr(tokens, "image_slots", False))
    rows = zip(
        np.asarray(tokens.ids).reshape(-1, keep.shape[-1]), keep.reshape(-1, keep.shape[-1]), strict=True
    )
    return [run.tokenizer.decode(ids[kept]) for ids, kept in rows]


def take(stream, count, step=0):
    return jax.device_get(list(itertools.islice(stream(step), count)))


def questions(size=SCENES):
    source = QuestionSource("biased", split="train", stream=3, size=size)
    return [source[index] for index in range(size)]


def assert_spread(arrays):
    """Every device holds its share of the eight rows."""
    for array in jax.tree.leaves(arrays):
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {1}


def test_questions_to_imitate_stand_before_their_true_answers(run):
    expected = {(q["image"].tobytes(), q["question"]): q["reply"] for q in questions()}
    assert_spread(next(question_batches(run)(0)))
    for batch in take(question_batches(run), 3):
        asked, replies = texts_of(run, batch.prompt), texts_of(run, batch.branches)
        assert batch.images.shape == (8, 1, 64, 64, 3) and batch.branches.ids.shape == (8, 1, 8)
        for image, question, reply in zip(batch.images[:, 0], asked, replies, strict=True):
            true = expected[image.tobytes(), question.removeprefix("answer the question : ")]
            assert reply == f"<think></think><answer> {true}</answer>"
        ends = np.take_along_axis(
            batch.branches.ids, batch.branches.valid.sum(-1, keepdims=True) - 1, axis=-1
        )
        assert (ends == run.tokenizer.eos_id).all()
        assert (batch.prompt.image_slots.sum(1) == 4).all() and not batch.blind.any()


def test_questions_to_answer_know_the_true_reply(run):
    expected = {(q["image"].tobytes(), q["question"]): q["reply"] for q in questions()}
    batch = next(questions_to_answer(run, prompts=16)(0))
    assert texts_of(run, batch.prompt) == [text.removeprefix("<image> ") for text in batch.texts]
    assert [
        f"<image> answer the question : {question}" for question in batch.columns["question"]
    ] == batch.texts
    pairs = zip(np.asarray(batch.images)[:, 0], batch.columns["question"], strict=True)
    assert [expected[image.tobytes(), question] for image, question in pairs] == batch.columns["answer"]
    assert len(batch.texts) == 16


def drawings():
    source = DrawingSource("biased", split="train", stream=3, size=SCENES)
    return [source[index] for index in range(SCENES)]


def shown(run, batch):
    """The pictures of a batch; their latents are their pixels."""
    return np.asarray(decode_tokens(run.coder, batch.clean, run.model.latent))


def test_pictures_to_imitate_show_what_their_prompts_say(run):
    pictures = {drawing["image"].tobytes(): drawing["prompt"] for drawing in drawings()}
    assert_spread(next(drawing_batches(run)(0)))
    for batch in take(drawing_batches(run), 3):
        assert not batch.prompt.image_slots.any()
        for image, text in zip(shown(run, batch)[:, 0], texts_of(run, batch.prompt), strict=True):
            prompt = pictures[image.tobytes()]
            assert text == f"draw the image : {prompt.text}"
            assert strict(read(image).objects, prompt.clauses)
        np.testing.assert_array_equal(batch.weights, np.ones((8, 1)))
        assert len(set(batch.seeds.tolist())) == 8


def test_a_share_of_the_texts_is_left_out(run):
    run.config.drawing.text_dropout = 0.5
    texts = [text for batch in take(drawing_batches(run), 12) for text in texts_of(run, batch.prompt)]
    # 96 throws of a coin: five standard deviations are 24.5.
    assert 23 < texts.count("draw the image :") < 73
    known = {f"draw the image : {drawing['prompt'].text}" for drawing in drawings()}
    assert set(texts) <= known | {"draw the image :"}


def test_prompts_to_draw_come_with_their_clauses(run):
    known = {drawing["prompt"].text: drawing["prompt"] for drawing in drawings()}
    opened = prompts_to_draw(run, prompts=16)(0)
    seen = []
    for batch in itertools.islice(opened, 3):
        assert texts_of(run, batch.conditions.prompt) == [f"draw the image : {text}" for text in batch.texts]
        assert batch.columns["tag"] == [known[text].tag for text in batch.texts]
        assert batch.columns["clauses"] == [known[text].clauses for text in batch.texts]
        for text, clauses in zip(batch.texts, batch.columns["clauses"], strict=True):
            for clause in clauses.include:
                assert clause.shape in text and (clause.color or "") in text
        seen += np.asarray(batch.seeds).tolist()
    # An epoch: every prompt has noise of its own.
    assert len(set(seen)) == SCENES


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_only_guidance_needs_prompts_without_text(run, guidance):
    run.config.generation.sampler.guidance = guidance
    texts = ["draw a circle ."] * 4 + ["a picture of two red squares ."] * 4
    conditions = conditions_of(run, texts)
    assert texts_of(run, conditions.prompt) == [f"draw the image : {text}" for text in texts]
    assert_spread(conditions)
    assert conditions.images is None and conditions.thoughts is None
    if guidance == 1.0:
        assert conditions.textless is None
    else:
        assert texts_of(run, conditions.textless) == ["draw the image :"] * 8


STREAMS = {
    "question": question_batches,
    "drawing": drawing_batches,
    "question_policy": lambda run: questions_to_answer(run, prompts=8),
    "drawing_policy": lambda run: prompts_to_draw(run, prompts=8),
}


@pytest.mark.parametrize("name", STREAMS)
def test_batches_are_a_function_of_the_step(run, name):
    run.config.drawing.text_dropout = 0.5
    whole, (resumed,) = take(STREAMS[name](run), 3), take(STREAMS[name](run), 1, step=2)
    jax.tree.map(np.testing.assert_array_equal, whole[2], resumed)
    run.config.seed = 4
    (other,) = take(STREAMS[name](run), 1)
    assert jax.tree.leaves(other)[0].tolist() != jax.tree.leaves(whole[0])[0].tolist()


def test_the_control_imitates_what_the_policies_are_given_and_nothing_that_came_before(run):
    run.config.data.scenes = 10_000_000

    def asked(stream, count):
        return [
            row
            for batch in take(stream, count)
            for row in zip(
                texts_of(run, batch.prompt),
                shown(run, batch) if isinstance(batch, DrawingBatch) else batch.images,
                strict=True,
            )
        ]

    def scenes(rows):
        return {image.tobytes() for _, image in rows}

    policy, control = (
        asked(questions_to_answer(run, prompts=16), 1),
        asked(question_batches(run, "_policy"), 2),
    )
    assert [text for text, _ in policy] == [text for text, _ in control]
    assert scenes(policy) == scenes(control) and len(scenes(policy)) == 16
    assert not scenes(policy) & scenes(asked(question_batches(run), 4))

    (policy,) = take(prompts_to_draw(run, prompts=16), 1)
    control = asked(drawing_batches(run, "_policy"), 2)
    assert [text for text, _ in control] == [f"draw the image : {text}" for text in policy.texts]
    # Prompts are few and come again, pictures do not.
    assert not scenes(control) & scenes(asked(drawing_batches(run), 4))
