import jax
import numpy as np
import pytest

from mmrpt_jax.data.prompts import Wording, encode_branches, encode_prompts
from mmrpt_jax.evaluation.evaluator import Evaluator, swap_images
from mmrpt_jax.models import BranchTokens
from mmrpt_jax.training.compilations import compilations

PROMPTS = [Wording().caption, Wording().fill_prompt("a [MASK] circle"), Wording().fill_prompt("blue [MASK]")]
CANDIDATES = [["a red circle<eos>", "blue"], ["two green triangles"], ["above", "a", "the square ."]]
BATCH, TOKENS = 2, 5


@pytest.fixture(scope="module")
def evaluator(tiny_model, tiny_processor):
    """Two prompts a batch: three prompts leave the last batch half full."""
    return Evaluator(tiny_model, tiny_processor, Wording(), BATCH, (12,), TOKENS)


@pytest.fixture(scope="module")
def images(tiny_images):
    return [[image] for image in tiny_images[:3, 0]]


@pytest.fixture(scope="module")
def logprobs_of(tiny_params, tiny_forward, tiny_tokenizer):
    """(images, prompt, text) -> log-probabilities of the text's tokens, from one forward pass of its own."""

    def score(images, prompt, text, *, blind=False):
        tokens = encode_prompts(tiny_tokenizer, [prompt], image_tokens=4, images=len(images), lengths=(24,))
        if blind:
            tokens = tokens._replace(valid=tokens.valid & ~tokens.image_slots)
        branches = encode_branches(tiny_tokenizer, [[text]], lengths=(16,))
        out = tiny_forward(tiny_params, np.stack(images)[None], tokens, branches).logprobs
        return np.asarray(out)[0, 0][branches.valid[0, 0]]

    return score


def expected(logprobs_of, images, **options):
    return [
        [logprobs_of(pictures, prompt, text, **options).sum() for text in texts]
        for pictures, prompt, texts in zip(images, PROMPTS, CANDIDATES, strict=True)
    ]


def test_likelihoods_by_hand(evaluator, tiny_params, images, logprobs_of):
    neighbours = [images[1], images[2], images[0]]
    for condition, by_hand in {
        "right": expected(logprobs_of, images),
        "swapped": expected(logprobs_of, neighbours),
        "none": expected(logprobs_of, images, blind=True),
    }.items():
        found = evaluator.log_likelihoods(tiny_params, images, PROMPTS, CANDIDATES, condition)
        assert [len(scores) for scores in found] == [2, 1, 3]
        for scores, hand in zip(found, by_hand, strict=True):
            np.testing.assert_allclose(scores, hand, rtol=1e-5)
    assert not np.allclose(expected(logprobs_of, images)[0], expected(logprobs_of, neighbours)[0])


def test_answers_are_greedy(evaluator, tiny_params, tiny_forward, tiny_tokenizer, images):
    answers = evaluator.generate(tiny_params, images, PROMPTS)
    assert len(answers) == 3
    every_id, width = np.arange(tiny_tokenizer.vocab_size), np.arange(TOKENS)
    for (image,), prompt, answer in zip(images, PROMPTS, answers, strict=True):
        tokens = encode_prompts(tiny_tokenizer, [prompt], image_tokens=4, lengths=(24,))
        ids: list[int] = []
        while len(ids) < TOKENS and tiny_tokenizer.eos_id not in ids:
            # Every token of the vocabulary as one branch behind what was chosen so far.
            tried = np.zeros((1, len(every_id), TOKENS), np.int32)
            tried[..., : len(ids)], tried[0, :, len(ids)] = ids, every_id
            valid = np.broadcast_to(width <= len(ids), tried.shape)
            out = tiny_forward(tiny_params, image[None, None], tokens, BranchTokens(tried, valid))
            logprobs = np.array(out.logprobs[0, :, len(ids)])
            logprobs[[tiny_tokenizer.pad_id, tiny_tokenizer.image_id]] = -np.inf
            ids.append(int(logprobs.argmax()))
        assert answer == tiny_tokenizer.decode(ids)


def test_conditions_choose_the_image(evaluator, tiny_params, images):
    def generate(images, condition):
        return evaluator.generate(tiny_params, images, [PROMPTS[1]] * 3, condition)

    swapped = generate(images, "swapped")
    assert swapped == generate([images[1], images[2], images[0]], "right")
    blind = generate(images, "none")
    # Without images the three prompts are one.
    assert len(set(blind)) == 1
    assert generate(images, "right") != blind


def test_images_are_swapped_with_those_of_the_next_prompt_that_has_as_many():
    def image(*pixels):
        return np.array(pixels, np.uint8)[:, None, None]

    images = [[image(10)], [image(20), image(21)], [image(11)], [], [], [image(12, 13)]]
    # The third prompt has no room for the two pixels of the last one, whose turn it is.
    found = swap_images(images, lambda place, sizes: place != 2 or sizes == [(1, 1)])
    assert [[picture.ravel().tolist() for picture in prompt] for prompt in found] == [
        [[11]],
        # Nobody else has two images.
        [[127], [127]],
        [[10]],
        [],
        [],
        [[10]],
    ]


def test_prompts_of_any_number_of_images(evaluator, tiny_params, images, logprobs_of):
    images = [[*images[0], *images[1]], [], images[2]]
    prompts = [Wording().caption_prompt(2), Wording().caption_prompt(0), PROMPTS[2]]
    found = evaluator.log_likelihoods(tiny_params, images, prompts, CANDIDATES)
    for row in (0, 2):
        hand = [logprobs_of(images[row], prompts[row], text).sum() for text in CANDIDATES[row]]
        np.testing.assert_allclose(found[row], hand, rtol=1e-5)
    swapped = evaluator.log_likelihoods(tiny_params, images, prompts, CANDIDATES, "swapped")
    # Without an image there is none to swap, or to hide.
    np.testing.assert_array_equal(swapped[1], found[1])
    blind = evaluator.log_likelihoods(tiny_params, images, prompts, CANDIDATES, "none")
    np.testing.assert_array_equal(blind[1], found[1])
    assert not np.allclose(swapped[0], found[0])


def test_programs_are_compiled_once(evaluator, tiny_params, images):
    def evaluate(params, images, prompts, condition):
        evaluator.generate(params, images, prompts, condition)
        evaluator.log_likelihoods(params, images, prompts, CANDIDATES[-len(prompts) :], condition)

    evaluate(tiny_params, images, PROMPTS, "right")
    before, others = compilations(), jax.tree.map(np.negative, tiny_params)
    for condition in ("right", "swapped", "none"):
        evaluate(others, images, PROMPTS, condition)
    # A last batch that is not full has the same shape.
    evaluate(tiny_params, images[:1], PROMPTS[:1], "right")
    assert compilations() == before
