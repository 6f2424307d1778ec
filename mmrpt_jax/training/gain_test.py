import numpy as np
import pytest

from mmrpt_jax.data.prompts import completion, encode_branches, encode_prompts, fill_prompt
from mmrpt_jax.training.gain import answer_tokens, make_visual_gain
from mmrpt_jax.training.reinforce import PromptBatch

LENGTHS = (16, 24)
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
    texts = [fill_prompt(f"a [MASK] {word}") for word in ("circle", "triangle", "square", "is")]
    prompt = encode_prompts(tiny_tokenizer, texts, image_tokens=4, lengths=(24,))
    return PromptBatch(tiny_images[:4], prompt, texts, {"answer": TRUTHS})


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
def test_gain_by_hand(tiny_tokenizer, tiny_model, tiny_params, tiny_forward, batch, of):
    cap = 3.0
    gain = make_visual_gain(tiny_model, tiny_tokenizer, of=of, lengths=LENGTHS, cap=cap)
    found = gain(tiny_params, batch, COMPLETIONS)
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
        expected.append(min(max(difference / cap, 0.0), 1.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert any(0 < value < 1 for value in found)
    assert all(isinstance(value, float) for value in found)


@pytest.mark.parametrize("of", ["answer", "truth"])
def test_what_does_not_fit_gains_nothing(tiny_tokenizer, tiny_model, tiny_params, batch, of):
    # An answer cut off right behind its tags has no end token; scored with one, it is a token too long.
    gain = make_visual_gain(tiny_model, tiny_tokenizer, of=of, lengths=LENGTHS, cap=1e-6)
    text = "<think> a a a a a</think><answer>" + " a" * 18 + "</answer>"
    long = "<think>" + " a" * 22 + "</think><answer> a</answer>"
    assert gain(tiny_params, batch, [text, long] + COMPLETIONS[2:])[1] == 0.0
    if of == "answer":
        assert gain(tiny_params, batch, [text.replace(" a", " a a"), *COMPLETIONS[1:]])[0] == 0.0


def test_answer_tokens_lie_between_the_tags(tiny_tokenizer):
    texts = [["<think> a red circle</think><answer> red blue</answer><eos>", "<think></think><answer></answer>"]]
    branches = encode_branches(tiny_tokenizer, texts, lengths=(24,))
    inside = answer_tokens(tiny_tokenizer, branches)
    assert inside.shape == branches.ids.shape
    assert tiny_tokenizer.decode(branches.ids[0, 0][inside[0, 0]]) == "red blue"
    assert not inside[0, 1].any()
    # An answer without an end goes on to the end of the text, and not into the padding.
    open_end = encode_branches(tiny_tokenizer, [["<answer> red blue"]], lengths=(24,))
    assert tiny_tokenizer.decode(open_end.ids[0, 0][answer_tokens(tiny_tokenizer, open_end)[0, 0]]) == "red blue"


def test_unknown_kinds_are_refused(tiny_tokenizer, tiny_model):
    with pytest.raises(ValueError, match="visual gain is of the 'truth' or of the 'answer', not 'thought'"):
        make_visual_gain(tiny_model, tiny_tokenizer, of="thought", lengths=LENGTHS, cap=1.0)
