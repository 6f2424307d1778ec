from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import Wording, completion
from mmrpt_jax.models import BranchTokens
from mmrpt_jax.stages.mmrpt.leaks import make_blind_reader
from mmrpt_jax.training.processes import Whole
from mmrpt_jax.training.supervised import hide_images

MASKED = ["a [MASK] circle is above .", "[MASK] are two green triangles .", "a red [MASK] ."]
ANSWERS = ["red", "there", "blue square"]


@pytest.fixture
def run(tiny_model, tiny_processor):
    config = {"score": {"batch_size": 2}, "data": {"branch_lengths": (24,)}}
    return SimpleNamespace(
        config=ConfigDict(config),
        vlm=tiny_model,
        processor=tiny_processor,
        wording=Wording(),
        tokenizer=tiny_processor.tokenizer,
        whole=Whole(),
    )


def test_spans_are_as_likely_as_the_tokens_between_the_tags(
    run, tiny_params, tiny_tokenizer, tiny_forward, tiny_images
):
    found = make_blind_reader(run, tiny_params)(MASKED, ANSWERS)
    for masked, answer, logprob in zip(MASKED, ANSWERS, found, strict=True):
        # One row without padding, with an image that nobody may see.
        ids = np.array(tiny_tokenizer.encode(completion("", answer)).ids)[None, None]
        _, prompt = run.processor.inputs([Wording().fill_prompt(masked)], [tiny_images[0]])
        prompt = hide_images(prompt, np.ones(1, bool))
        scored = tiny_forward(
            tiny_params, tiny_images[:1], prompt, BranchTokens(ids, np.ones(ids.shape, bool))
        )
        # <think></think><answer> and </answer><eos> stand around it.
        assert logprob == pytest.approx(float(scored.logprobs[0, 0, 3:-2].sum()), rel=1e-4)


def test_what_the_words_behind_a_blank_say_counts(run, tiny_params):
    blind = make_blind_reader(run, tiny_params)
    one, other = blind(["a [MASK] .", "a [MASK] above the blue square ."], ["red"] * 2)
    assert one != other
    assert blind([], []).shape == (0,)
