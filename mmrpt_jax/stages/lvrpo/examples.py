"""Questions and drawings as batches: to be imitated, and to be answered or drawn by the policy."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from mmrpt_jax.data.drawing_source import DrawingSource
from mmrpt_jax.data.examples import PickDrawing
from mmrpt_jax.data.prompts import completion, encode_branches
from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.models import PromptTokens
from mmrpt_jax.models.autoencoder import encode_tokens
from mmrpt_jax.sampling import Conditions
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.answers import PromptBatch
from mmrpt_jax.training.drawing import DrawingBatch
from mmrpt_jax.training.drawings import DrawingPrompts
from mmrpt_jax.training.supervised import SupervisedBatch


def drawing_tokens(run: Run, texts: Sequence[str]) -> PromptTokens:
    """Prompts that ask for pictures, as arrays; an empty text is the prompt that guidance steers away from."""
    prompts = [run.wording.drawing_prompt(text) for text in texts]
    return run.processor.prompts(prompts, lengths=run.config.data.drawing_lengths, answered=False)


def question_batches(run: Run, suffix: str = "") -> Callable[[int], Iterator[SupervisedBatch]]:
    """Questions with their true answers, behind an empty thought."""
    cfg, data = run.config.question, run.config.data
    source = QuestionSource(data.world, split="train", stream=run.config.seed, size=data.scenes)

    def build(batch: dict) -> SupervisedBatch:
        replies = [[completion("", reply)] for reply in batch["reply"]]
        prompts = [run.wording.question_prompt(question) for question in batch["question"]]
        built = SupervisedBatch(
            *run.processor.inputs(prompts, run.views(batch["image"])),
            encode_branches(run.tokenizer, replies, lengths=data.branch_lengths),
            np.zeros(len(replies), bool),
        )
        return run.share.place(built)

    return run.batches(source, None, build, stream=f"question{suffix}", batch_size=cfg.batch_size)


def drawing_batches(run: Run, suffix: str = "") -> Callable[[int], Iterator[DrawingBatch]]:
    """Prompts with one picture each."""
    cfg, latent = run.config.drawing, run.model.latent
    # The autoencoder is an argument, so that its weights are not compiled in.
    encode = jax.jit(encode_tokens, static_argnums=2)

    def build(batch: dict) -> DrawingBatch:
        images = _enlarged(batch["image"], latent.image_size)[:, None]
        weights, seeds = np.ones(images.shape[:2], np.float32), np.asarray(batch["seed"], np.int32)
        prompts, images, weights, seeds = run.share.place(
            (drawing_tokens(run, batch["text"]), images, weights, seeds)
        )
        return DrawingBatch(prompts, encode(run.coder, images, latent), weights, seeds)

    transform = PickDrawing(cfg.text_dropout)
    return run.batches(_drawings(run), transform, build, stream=f"drawing{suffix}", batch_size=cfg.batch_size)


def _enlarged(images: UInt8[np.ndarray, "B h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "B H W 3"]:
    """Pictures in the size that is drawn, a multiple of theirs: pixels become squares, which `scenes.read` undoes."""
    down, across = (wanted // found for wanted, found in zip(size, images.shape[1:3], strict=True))
    return images.repeat(down, axis=1).repeat(across, axis=2)


def questions_to_answer(run: Run, *, prompts: int) -> Callable[[int], Iterator[PromptBatch]]:
    """Questions for the policy; the column `answer` is the true reply."""
    data = run.config.data
    source = QuestionSource(data.world, split="train", stream=run.config.seed, size=data.scenes)

    def build(batch: dict) -> PromptBatch:
        texts = [run.wording.question_prompt(question) for question in batch["question"]]
        images, tokens = run.share.place(run.processor.inputs(texts, run.views(batch["image"])))
        columns = {"answer": batch["reply"], "question": batch["question"], "id": batch["id"]}
        return PromptBatch(images, tokens, texts, columns)

    return run.batches(source, None, build, stream="question_policy", batch_size=prompts)


def prompts_to_draw(run: Run, *, prompts: int) -> Callable[[int], Iterator[DrawingPrompts]]:
    """Prompts for the policy; the column `clauses` is what their pictures must show."""

    def build(batch: dict) -> DrawingPrompts:
        texts = [prompt.text for prompt in batch["prompt"]]
        conditions = conditions_of(run, texts)
        columns: dict[str, list[Any]] = {"clauses": [prompt.clauses for prompt in batch["prompt"]]}
        columns["tag"] = [prompt.tag for prompt in batch["prompt"]]
        seeds = run.share.place(np.asarray(batch["seed"], np.int32))
        return DrawingPrompts(conditions, texts, columns, seeds)

    source = _PromptsAlone(_drawings(run))
    return run.batches(source, None, build, stream="drawing_policy", batch_size=prompts)


def conditions_of(run: Run, texts: Sequence[str]) -> Conditions:
    """What pictures are drawn from: the prompts, and as many without text if guidance is on."""
    guided = run.config.generation.sampler.guidance > 1.0
    textless = drawing_tokens(run, [""] * len(texts)) if guided else None
    return run.share.place(Conditions(drawing_tokens(run, texts), textless=textless))


def _drawings(run: Run) -> DrawingSource:
    data = run.config.data
    return DrawingSource(data.world, split="train", stream=run.config.seed, size=data.scenes)


class _PromptsAlone:
    """The prompts of a source, without the cost of their pictures, each with the number of its noise."""

    def __init__(self, source: DrawingSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"prompt": self._source.prompt(index), "seed": index % 2**31}
