"""Masked captions as batches: prompts with a blank, and the completions that fill it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mmrpt_jax.data.examples import PickMask
from mmrpt_jax.data.prompts import completion, encode_branches
from mmrpt_jax.data.records import RandomAccess
from mmrpt_jax.masking import GREY
from mmrpt_jax.models import PromptTokens
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.answers import PromptBatch
from mmrpt_jax.training.supervised import SupervisedBatch

_FIELDS = ("masked", "answer", "sentence", "blind_logprob", "span_llr")


def supervised_batches(
    run: Run, source: RandomAccess[Any], *, blank_images: bool, batch_size: int
) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Masked captions with their true completions; the thought is the restored sentence or nothing."""

    def build(batch: dict) -> SupervisedBatch:
        thoughts = batch["sentence"] if run.config.fill.think == "sentence" else [""] * len(batch["answer"])
        texts = [[completion(think, answer)] for think, answer in zip(thoughts, batch["answer"], strict=True)]
        prompts = run.fill_prompts(batch["masked"], batch["view"])
        built = SupervisedBatch(
            *_inputs(run, prompts, batch["view"], blank_images),
            encode_branches(run.tokenizer, texts, lengths=run.config.data.branch_lengths),
            np.zeros(len(texts), bool),
        )
        return run.share.place(built)

    return _batches(run, source, build, "supervised", batch_size)


def prompt_batches(
    run: Run, source: RandomAccess[Any], *, blank_images: bool, batch_size: int
) -> Callable[[int], Iterator[PromptBatch]]:
    """Masked captions to be answered by the policy."""

    def build(batch: dict) -> PromptBatch:
        columns = {name: batch[name] for name in ("id", "answer", "sentence", "masked")} | known_gain(
            run, batch
        )
        texts = run.fill_prompts(batch["masked"], batch["view"])
        images, prompt = run.share.place(_inputs(run, texts, batch["view"], blank_images))
        return PromptBatch(images, prompt, texts, columns)

    return _batches(run, source, build, "policy", batch_size)


def known_gain(run: Run, batch: dict) -> dict[str, list[float]]:
    """The reward column `visual_gain`, where stage 2 already knows it and no forward pass is needed.

    "span": what the image adds to the hidden span, llr / cap clipped to [0, 1], under the policy that scored; 0 for
    spans that it does not see yet. "surprise": 1 − p(span | no image), as the leak filter reads it.
    """
    cfg = run.config.rl.visual_gain
    if cfg.of == "span":
        return {"visual_gain": np.clip(batch["span_llr"] / cfg.cap, 0.0, 1.0).tolist()}
    if cfg.of == "surprise":
        return {"visual_gain": (1.0 - np.exp(batch["blind_logprob"])).tolist()}
    return {}


def _batches(
    run: Run, source: RandomAccess[Any], build: Callable[[dict], Any], stream: str, batch_size: int
) -> Callable[[int], Iterator[Any]]:
    transform = PickMask(run.see, run.processor.hide, _FIELDS)
    return run.batches(source, transform, build, stream=stream, batch_size=batch_size)


def _inputs(run: Run, texts: Sequence[str], views: Sequence[Any], blank: bool) -> tuple[Any, PromptTokens]:
    images, prompts = run.processor.inputs(texts, views)
    return (jax.tree.map(_grey, images) if blank else images), prompts


def _grey(array: np.ndarray) -> np.ndarray:
    """Pixels are the only bytes of a batch; where patches stand is not."""
    return np.full_like(array, GREY) if array.dtype == np.uint8 else array
