import contextlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import Wording, encode_prompts
from mmrpt_jax.models import BranchTokens
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.vlm_test import random_parameters
from mmrpt_jax.reporting.completions import CompletionsWriter
from mmrpt_jax.reporting.jsonl import read_jsonl
from mmrpt_jax.stages.answering import (
    advantage_scale,
    answer_rollout,
    completions_log,
    ref_logprobs,
    scoring,
)
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.judging import Judgement

B, G, R, TEMPERATURE = 2, 3, 4, 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_processor, tiny_model):
    config = ConfigDict({"data": {"branch_lengths": (2, R)}, "train": {"gather_to_sample": False}})
    folder = tmp_path_factory.mktemp("run")
    return Run(config, folder, tiny_processor, tiny_model, None, make_mesh())


def section(kl="none"):
    return ConfigDict({"group_size": G, "temperature": TEMPERATURE, "loss": {"kl": kl}})


@pytest.fixture(scope="module")
def params(tiny_model):
    return random_parameters(tiny_model)


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer, tiny_images):
    tokens = encode_prompts(tiny_tokenizer, [Wording().caption] * B, image_tokens=4, lengths=(16,))
    return tiny_images[:B], tokens


@pytest.fixture(scope="module")
def first_logprobs(run, params, prompts, tiny_forward):
    """log p of every id as the first of an answer, [B V]: cooled, without what is banned, by hand."""
    ids = np.tile(np.arange(run.vlm.vocab_size)[None, :, None], (B, 1, 1))
    plain = np.asarray(
        tiny_forward(params, *prompts, BranchTokens(ids, np.ones(ids.shape, bool))).logprobs, float
    )
    weights = np.exp(plain[..., 0] / TEMPERATURE)
    weights[:, [run.tokenizer.pad_id, run.tokenizer.image_id]] = 0
    return np.log(np.maximum(weights / weights.sum(-1, keepdims=True), 1e-300))


@pytest.fixture(scope="module")
def reference(run, params):
    return ref_logprobs(run, section("k3"), params)


def test_answers_are_drawn_from_what_scores_them(run, params, prompts, reference, first_logprobs):
    rollout = jax.device_get(answer_rollout(run, section())(params, *prompts, jax.random.key(0)))
    # As long as the longest answer may be.
    assert rollout.ids.shape == (B, G, R)
    first = np.take_along_axis(first_logprobs, rollout.ids[..., 0], axis=1)
    np.testing.assert_allclose(rollout.logprobs[..., 0], first, rtol=1e-4)
    # An answer ends with its end token, or is cut off.
    ends = ((rollout.ids == run.tokenizer.eos_id) & rollout.valid).any(-1)
    np.testing.assert_array_equal(rollout.truncated, ~ends)
    # The policy that drew them, taken as the reference, says the same of all their tokens.
    scores = reference(*prompts, BranchTokens(rollout.ids, rollout.valid))
    np.testing.assert_allclose(np.where(rollout.valid, scores, 0), rollout.logprobs, rtol=1e-4, atol=1e-5)


def test_scores_of_the_reference_by_hand(reference, prompts, first_logprobs):
    ids = np.tile(np.arange(8, 8 + G)[None, :, None], (B, 1, R))
    found = np.asarray(reference(*prompts, BranchTokens(ids, np.ones(ids.shape, bool))))
    np.testing.assert_allclose(found[..., 0], first_logprobs[:, 8 : 8 + G], rtol=1e-4)


def test_without_a_penalty_there_is_no_reference(run):
    assert ref_logprobs(run, section(), None) is None


def test_what_is_read_is_never_written(run):
    options = scoring(run, section())
    assert options["temperature"] == TEMPERATURE
    banned = np.flatnonzero(options["banned"])
    assert banned.tolist() == sorted([run.tokenizer.pad_id, run.tokenizer.image_id])


@pytest.mark.parametrize(
    ("variant", "scale", "expected"),
    [("grpo", "variant", "group"), ("dr_grpo", "variant", "none"), ("grpo", "rloo", "rloo")],
)
def test_what_advantages_are_divided_by(variant, scale, expected):
    assert (
        advantage_scale(ConfigDict({"advantage": {"scale": scale}, "loss": {"variant": variant}})) == expected
    )


def judged(text):
    columns = {"masked": ["a [MASK]"], "answer": ["box"], "id": ["x"]}
    return SimpleNamespace(
        batch=SimpleNamespace(columns=columns),
        completions=[[f"{text} 0", f"{text} 1"]],
        own=Judgement(
            SimpleNamespace(total=np.array([[1.5, 0.5]]), parts={"exact": np.array([[1.0, np.nan]])}),
            np.array([[1.0, -1.0]]),
        ),
    )


def test_a_resumed_run_writes_its_steps_anew(tmp_path):
    for first, last, text in ((0, 3, "early"), (2, 4, "late")):
        with contextlib.closing(CompletionsWriter(tmp_path)) as writer:
            write = completions_log(writer, prompts="masked")
            for step in range(first, last):
                write(step, judged(text))
    lines = read_jsonl(tmp_path / "completions.jsonl")
    assert [(line["step"], line["answers"]) for line in lines] == [
        (0, ["early 0", "early 1"]),
        (1, ["early 0", "early 1"]),
        (2, ["late 0", "late 1"]),
        (3, ["late 0", "late 1"]),
    ]
    assert lines[0]["rewards"] == {"total": [1.5, 0.5], "exact": [1.0, None]}
    assert (lines[0]["prompt"], lines[0]["masked_span"], lines[0]["image"]) == ("a [MASK]", "box", "x")
