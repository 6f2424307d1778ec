"""The rewards of drawings that a config names, and what the model itself has to say about them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mmrpt_jax.data.prompts import caption_prompt, encode_branches, question_prompt
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.models.forward import forward
from mmrpt_jax.rewards import IMAGE_REWARDS, RewardFn, prompt_likelihood, questions_of_clauses
from mmrpt_jax.rewards.parse import parse_completion
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.drawings import DrawingPrompts


def drawing_rewards(config: ConfigDict, *, only: Sequence[str] = ()) -> dict[str, tuple[RewardFn, float]]:
    """Name -> (reward, weight), as `config.generation.rewards` says; of an arm with `only` some, with weight 1."""
    weights = {name: weight for name, weight in config.generation.rewards.items() if weight}
    if only:
        weights = dict.fromkeys(only, 1.0)
    return {name: (IMAGE_REWARDS[name].fn, weight) for name, weight in weights.items()}


def self_judgement(
    run: Run, judge: Any, rewards: Mapping[str, Any]
) -> Callable[[Any, DrawingPrompts, np.ndarray], dict[str, list[Any]]]:
    """The columns of the rewards of kind "self": what frozen parameters say of a drawing, as far as it is asked for."""
    makers = {"prompt_likelihood": _likelihood, "knowledge": _answers}
    columns = [maker(run, judge) for name, maker in makers.items() if name in rewards]

    def judged(params: Any, batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[Any]]:
        return {name: values for column in columns for name, values in column(batch, images).items()}

    return judged


def _likelihood(run: Run, judge: Any) -> Callable[[DrawingPrompts, np.ndarray], dict[str, list[float]]]:
    """How likely the drawing makes its prompt, as a caption."""
    scored = jax.jit(lambda params, *inputs: forward(run.vlm, params, *inputs).logprobs)

    def column(batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[float]]:
        group = len(images) // len(batch.texts)
        texts = [[f"{text}{EOS}"] for text in batch.texts for _ in range(group)]
        branches = encode_branches(run.tokenizer, texts, lengths=run.config.data.drawing_lengths)
        prompts = run.prompts([caption_prompt()] * len(images))
        logprobs = scored(judge, *run.place((images[:, None], prompts, branches)))
        return {"prompt_likelihood": np.asarray(prompt_likelihood(logprobs, branches.valid))[:, 0].tolist()}

    return column


def _answers(run: Run, judge: Any) -> Callable[[DrawingPrompts, np.ndarray], dict[str, list[list[str]]]]:
    """Its answers to questions about the drawing, whose right answers the prompt knows."""
    evaluator = run.evaluator(batch_size=run.config.generation.questions_at_a_time)

    def column(batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[list[str]]]:
        group = len(images) // len(batch.texts)
        asked = [questions_of_clauses(clauses) for clauses in batch.columns["clauses"] for _ in range(group)]
        seen = [image for image, questions in zip(images, asked, strict=True) for _ in questions]
        prompts = [question_prompt(question.question) for questions in asked for question in questions]
        replies = [parse_completion(text).answer or "" for text in evaluator.generate(judge, seen, prompts)]
        ends = np.cumsum([len(questions) for questions in asked])
        return {"answers": [list(part) for part in np.split(np.array(replies, object), ends[:-1])]}

    return column
