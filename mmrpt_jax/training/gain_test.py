import functools
from types import SimpleNamespace

import numpy as np
import pytest

from mmrpt_jax.data.prompts import Wording, completion, encode_branches, encode_prompts
from mmrpt_jax.training.answers import PromptBatch
from mmrpt_jax.training.gain import answer_tokens, make_visual_gain

LENGTHS, CAP = (16, 24), 3.0
TRUTHS = ["red", "blue square", "circle", "two"]
# Two answers to each of four prompts; three of them are malformed.
COMPLETIONS = [
    "<think> a red circle</think><answer> red</answer>",
    "<think></think><answer> blue</answer>",
    "<think></think><answer> the blue square</answer>",
    "<answer> blue square</answer>",
    "<think> above</think><answer> circle</answer>",
    "<think> above</think><answer></answer>",
    "<think></think><answer> two</answer>",
    "two",
]
WELL_FORMED = np.array([1, 1, 1, 0, 1, 0, 1, 0], bool)


@pytest.fixture(scope="module")
def batch(tiny_tokenizer, tiny_images):
    texts = [Wording().fill_prompt(f"a [MASK] {word}") for word in ("circle", "triangle", "square", "is")]
    prompt = encode_prompts(tiny_tokenizer, texts, image_tokens=4, lengths=(24,))
    return PromptBatch(tiny_images[:4], prompt, texts, {"answer": TRUTHS})


@pytest.fixture(scope="module")
def gain_of(tiny_tokenizer, tiny_model):
    """of -> the compiled gain, at most 1 for `CAP` nats a token."""
    options = {"lengths": LENGTHS, "cap": CAP}
    return functools.cache(lambda of: make_visual_gain(tiny_model, tiny_tokenizer, of=of, **options))


def mean_logprob(forward, tokenizer, params, batch, b, text, *, blind):
    """Mean log-probability of the words between the answer tags of one text, found by position."""
    prompt = type(batch.prompt)(*(x[b : b + 1] for x in batch.prompt))
    if blind:
        prompt = prompt._replace(valid=prompt.valid & ~prompt.image_slots)
    ids = tokenizer.encode(text).ids
    branches = encode_branches(tokenizer, [[text]], lengths=(24,))
    logprobs = forward(params, batch.images[b : b + 1], prompt, branches).logprobs[0, 0]
    tags = (tokenizer.encode(tag).ids[0] for tag in ("<answer>", "</answer>"))
    first, last = (ids.index(tag) for tag in tags)
    return float(np.mean(logprobs[first + 1 : last]))


@pytest.mark.parametrize("of", ["answer", "truth"])
def test_gain_by_hand(tiny_tokenizer, tiny_params, tiny_forward, batch, gain_of, of):
    found = gain_of(of)(tiny_params, batch, COMPLETIONS)
    answers = ["red", "blue", "the blue square", "", "circle", "", "two", ""]
    thoughts = ["a red circle", "", "", "", "above", "", "", ""]
    expected = []
    for i in range(8):
        span, thought = (TRUTHS[i // 2], thoughts[i]) if of == "truth" else (answers[i], "")
        if not WELL_FORMED[i]:
            expected.append(0.0)
            continue
        score = lambda text, blind, b=i // 2: mean_logprob(  # noqa: E731
            tiny_forward, tiny_tokenizer, tiny_params, batch, b, text, blind=blind
        )
        difference = score(completion(thought, span), False) - score(completion("", span), True)
        expected.append(min(max(difference / CAP, 0.0), 1.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert any(0 < value < 1 for value in found)
    assert all(isinstance(value, float) for value in found)


@pytest.mark.parametrize("of", ["answer", "truth"])
def test_what_does_not_fit_gains_nothing(tiny_tokenizer, tiny_params, batch, gain_of, of):
    # Sampled to the last of 24 tokens, behind which nothing was left for the end token.
    thought, answer = (18, 1) if of == "truth" else (0, 20)
    cut = f"<think>{' a' * thought}</think><answer>{' a' * answer}</answer>"
    assert len(tiny_tokenizer.encode(cut).ids) == 24 - (of == "truth")
    gains = gain_of(of)(tiny_params, batch, [cut, *COMPLETIONS[1:]])
    assert gains[0] == 0.0
    assert gains[1:] == gain_of(of)(tiny_params, batch, COMPLETIONS)[1:]


def test_answer_tokens_lie_between_the_tags(tiny_tokenizer):
    texts = [
        ["<think> a red circle</think><answer> red blue</answer><eos>", "<think></think><answer></answer>"]
    ]
    branches = encode_branches(tiny_tokenizer, texts, lengths=(24,))
    inside = answer_tokens(tiny_tokenizer, texts, 24)
    assert inside.shape == branches.ids.shape
    assert tiny_tokenizer.decode(branches.ids[0, 0][inside[0, 0]]) == "red blue"
    assert not inside[0, 1].any()


def test_answer_tokens_where_tags_are_many_tokens():
    """One token for each pair of characters: "r>" and "d<" hold a part of the answer, and of a tag."""
    text = "<answer>red</answer>"
    pairs = [(i, i + 2) for i in range(0, len(text), 2)]
    tokenizer = SimpleNamespace(encode=lambda _: SimpleNamespace(offsets=pairs))
    # The answer is characters 8 to 10 of 20.
    assert np.flatnonzero(answer_tokens(tokenizer, [[text]], 12)[0, 0]).tolist() == [4, 5]


def test_unknown_kinds_are_refused(tiny_tokenizer, tiny_model):
    with pytest.raises(ValueError, match="visual gain is of the 'truth' or of the 'answer', not 'thought'"):
        make_visual_gain(tiny_model, tiny_tokenizer, of="thought", lengths=LENGTHS, cap=1.0)
