"""The rewards of drawings that a config names, and what the model itself has to say about them."""

import functools
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from mmrpt_jax.data.prompts import Wording, completion, encode_branches
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.models.forward import forward
from mmrpt_jax.rewards import (
    IMAGE_REWARDS,
    RewardFn,
    make_dense_grounding,
    make_image_text_cosine,
    prompt_likelihood,
    questions_of_clauses,
    yes_probability,
)
from mmrpt_jax.rewards.parse import parse_completion
from mmrpt_jax.scenes import Clauses
from mmrpt_jax.scenes.questions import ask_presence
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.drawings import DrawingPrompts
from mmrpt_jax.training.judging import per_member

# The rewards of kind "external", and what they ask an encoder for.
EXTERNAL = {
    "image_text_cosine": ("encode_images", "encode_texts"),
    "dense_grounding": ("encode_patches", "encode_tokens"),
}


def drawing_rewards(
    weights: Mapping[str, float], encoder: Any = None, grounding: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, tuple[RewardFn, float]]:
    """Name -> (reward, weight).

    Args:
        weights: by name.
        encoder: what rewards of kind "external" ask.
        grounding: options of dense grounding.
    """
    known = dict(IMAGE_REWARDS)
    if encoder is not None:
        external = make_image_text_cosine(encoder), make_dense_grounding(encoder, **grounding)
        known |= {reward.name: reward for reward in external}
    return {name: (known[name].fn, weight) for name, weight in weights.items()}


@functools.cache
def open_encoder(name: str) -> Any:
    """The image-text encoder that "package.module:name" names, or what that makes when called; None for no name.

    What stands behind a second colon is given to the call: `mmrpt_jax.stages.lvrpo.siglip_encoder:load_siglip:DIR`.
    It is made once, however often it is asked for.

    Raises:
        ConfigError: there is no such thing, it fails, or it embeds nothing.
    """
    if not name:
        return None
    module, _, rest = name.partition(":")
    attribute, *argument = rest.split(":", maxsplit=1)
    try:
        found = getattr(importlib.import_module(module), attribute)
        embeds = _embeds(found) and not isinstance(found, type)
        encoder = found if embeds else found(*argument)
    # A user's own code, which may fail in any way.
    except Exception as error:
        told = " ".join(str(error).split()) or "no message"
        raise ConfigError(f"config.generation.encoder={name!r}: {type(error).__name__}: {told}") from error
    if not _embeds(encoder):
        wanted = ", nor ".join(" and ".join(methods) for methods in EXTERNAL.values())
        raise ConfigError(f"config.generation.encoder={name!r} has neither {wanted}")
    return encoder


def _embeds(encoder: Any) -> bool:
    return any(all(hasattr(encoder, method) for method in methods) for methods in EXTERNAL.values())


def self_judgement(
    run: Run, judge: Any, rewards: Mapping[str, Any]
) -> Callable[[Any, DrawingPrompts, np.ndarray], dict[str, list[Any]]]:
    """The columns of the rewards of kind "self": what frozen parameters say of a drawing, as far as it is asked for."""
    makers = {"prompt_likelihood": _likelihood, "yes_probability": _assent, "knowledge": _answers}
    columns = [maker(run, judge) for name, maker in makers.items() if name in rewards]

    def judged(params: Any, batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[Any]]:
        return {name: values for column in columns for name, values in column(batch, images).items()}

    return judged


def _likelihood(run: Run, judge: Any) -> Callable[[DrawingPrompts, np.ndarray], dict[str, list[float]]]:
    """How likely the drawing makes its prompt, as a caption."""
    scored = jax.jit(lambda params, *inputs: forward(run.vlm, params, *inputs).logprobs)

    def column(batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[float]]:
        texts = [[f"{text}{EOS}"] for text in per_member(batch.texts, _group_size(batch, images))]
        branches = encode_branches(run.tokenizer, texts, lengths=run.config.data.drawing_lengths)
        inputs = run.processor.inputs([run.wording.caption_prompt()] * len(images), run.views(images))
        inputs = run.share.place((*inputs, branches))
        found = run.share.read(prompt_likelihood(scored(judge, *inputs), inputs[-1].valid))
        return {"prompt_likelihood": found[:, 0].tolist()}

    return column


def _assent(run: Run, judge: Any) -> Callable[[DrawingPrompts, np.ndarray], dict[str, list[float]]]:
    """How surely it says yes when asked for each thing that the prompt names: the mean over them."""
    evaluator = run.evaluator(batch_size=run.config.generation.questions_at_a_time, batches=run.share)
    candidates = [completion("", "yes"), completion("", "no")]

    def column(batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[float]]:
        wanted = per_member(batch.columns["clauses"], _group_size(batch, images))
        asked = [_presence(clauses) for clauses in wanted]
        seen, prompts, ends = _flat(run.wording, images, asked)
        scores = evaluator.log_likelihoods(judge, seen, prompts, [candidates] * len(prompts))
        with run.share.locally():
            sure = np.asarray(yes_probability(*np.stack(scores).T))
        return {"yes_probability": [float(part.mean()) for part in np.split(sure, ends)]}

    return column


def _group_size(batch: DrawingPrompts, images: np.ndarray) -> int:
    return len(images) // len(batch.texts)


def _flat(
    wording: Wording, images: np.ndarray, asked: list[list[str]]
) -> tuple[list[list[np.ndarray]], list[str], np.ndarray]:
    """An image and a prompt per question, and where the questions of the next image begin."""
    seen = [[image] for image, questions in zip(images, asked, strict=True) for _ in questions]
    prompts = [wording.question_prompt(question) for questions in asked for question in questions]
    return seen, prompts, np.cumsum([len(questions) for questions in asked])[:-1]


def _presence(clauses: Clauses) -> list[str]:
    """Questions whether there is what a prompt names."""
    return [ask_presence(clause.noun(), present=True).question for clause in clauses.include]


def _answers(run: Run, judge: Any) -> Callable[[DrawingPrompts, np.ndarray], dict[str, list[list[str]]]]:
    """Its answers to questions about the drawing, whose right answers the prompt knows."""
    evaluator = run.evaluator(batch_size=run.config.generation.questions_at_a_time, batches=run.share)

    def column(batch: DrawingPrompts, images: np.ndarray) -> dict[str, list[list[str]]]:
        wanted = per_member(batch.columns["clauses"], _group_size(batch, images))
        asked = [[question.question for question in questions_of_clauses(clauses)] for clauses in wanted]
        seen, prompts, ends = _flat(run.wording, images, asked)
        replies = [parse_completion(text).answer or "" for text in evaluator.generate(judge, seen, prompts)]
        return {"answers": [list(part) for part in np.split(np.array(replies, object), ends)]}

    return column
