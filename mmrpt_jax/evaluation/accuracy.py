"""Shares of right answers, by kind, with their uncertainty."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.evaluation.evaluator import Evaluator, ImageCondition
from mmrpt_jax.evaluation.items import ClozeItem, FillItem
from mmrpt_jax.rewards import exact_match_score, parse_completion


def fill_accuracy(
    evaluator: Evaluator, params, items: Sequence[FillItem], condition: ImageCondition = "right"
) -> dict[str, float]:
    """Exact match of generated answers on hidden spans.

    Returns:
        `all`, every kind, and `parsed`, the share of well-formed completions.
    """
    prompts = [evaluator.wording.fill_prompt(item.masked, len(item.images)) for item in items]
    completions = evaluator.generate(params, [item.images for item in items], prompts, condition)
    return _completions_right(completions, [item.answer for item in items], [item.kind for item in items])


def cloze_accuracy(evaluator: Evaluator, params, items: Sequence[ClozeItem]) -> dict[str, float]:
    """Zero-shot accuracy: the statement that the model finds most likely as a caption of the image.

    Returns:
        `all`, every kind, and `bias`: the share of colour questions answered with the training world's favourite colour
        where that is wrong.
    """
    statements = [[item.cloze.replace("[MASK]", c) + EOS for c in item.candidates] for item in items]
    images, prompts = [[item.image] for item in items], [evaluator.wording.caption_prompt()] * len(items)
    scores = evaluator.log_likelihoods(params, images, prompts, statements)
    chosen = [item.candidates[int(np.argmax(score))] for item, score in zip(items, scores, strict=True)]
    right = [float(choice == item.answer) for choice, item in zip(chosen, items, strict=True)]
    misled = [
        float(choice == item.bias_answer)
        for choice, item in zip(chosen, items, strict=True)
        if item.bias_answer is not None and item.bias_answer != item.answer
    ]
    return by_kind(right, [item.kind for item in items]) | (
        {"bias": float(np.mean(misled))} if misled else {}
    )


def question_accuracy(
    evaluator: Evaluator, params, items: Sequence[ClozeItem], condition: ImageCondition = "right"
) -> dict[str, float]:
    """Exact match of generated bare replies to questions, for fine-tuned models: `all` and every kind."""
    replies = _ask(evaluator, params, items, condition)
    return _right(replies, [item.reply for item in items], [item.kind for item in items])


def answer_accuracy(
    evaluator: Evaluator, params, items: Sequence[ClozeItem], condition: ImageCondition = "right"
) -> dict[str, float]:
    """Exact match of replies to questions that stand inside `<think></think><answer>…</answer>`, as policies answer.

    Returns:
        `all`, every kind, and `parsed`, the share of well-formed completions; the others count as wrong.
    """
    completions = _ask(evaluator, params, items, condition)
    return _completions_right(completions, [item.reply for item in items], [item.kind for item in items])


def by_kind(right: Sequence[float], kinds: Sequence[str]) -> dict[str, float]:
    """Mean over all items, and over the items of each kind."""
    groups = defaultdict(list)
    for value, kind in zip(right, kinds, strict=True):
        groups[kind].append(value)
    return {"all": float(np.mean(right))} | {
        kind: float(np.mean(values)) for kind, values in sorted(groups.items())
    }


def binomial_ci95(share: float, count: int) -> float:
    """Half the width of the normal 95 % interval of a share of `count` independent items."""
    return 1.96 * float(np.sqrt(share * (1.0 - share) / count))


def _ask(evaluator: Evaluator, params, items: Sequence[ClozeItem], condition: ImageCondition) -> list[str]:
    prompts = [evaluator.wording.question_prompt(item.question) for item in items]
    return evaluator.generate(params, [[item.image] for item in items], prompts, condition)


def _completions_right(
    completions: Sequence[str], truths: Sequence[str], kinds: Sequence[str]
) -> dict[str, float]:
    parsed = [parse_completion(text) for text in completions]
    shares = _right([p.answer for p in parsed], truths, kinds)
    return shares | {"parsed": float(np.mean([p.well_formed for p in parsed]))}


def _right(answers: Sequence[str], truths: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    return by_kind([exact_match_score(*pair) for pair in zip(answers, truths, strict=True)], kinds)
