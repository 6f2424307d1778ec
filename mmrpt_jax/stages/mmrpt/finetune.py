"""Robustness under supervised fine-tuning: a small, biased question set, and what it does to the flipped world."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from mmrpt_jax.data.damage import usable
from mmrpt_jax.data.escape import escape_placeholders
from mmrpt_jax.data.images import decode_image, image_size
from mmrpt_jax.data.prompts import answer_text, encode_branches
from mmrpt_jax.data.question_source import QuestionSource
from mmrpt_jax.data.records import MappedSource, RandomAccess, Record, open_records
from mmrpt_jax.models import VLMConfig
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.loop import StepFn, train
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state
from mmrpt_jax.training.supervised import SupervisedBatch, make_supervised_step


def record_questions(run: Run) -> RandomAccess[dict[str, Any]]:
    """The first question of every training record whose question fits the prompts.

    Raises:
        ValueError: there is none.
    """
    source = open_records(run.config.data.path, run.config.data.split)

    def fits(record: Record) -> bool | None:
        found = _first_question(record)
        return found and _fits(run, *found, record["images"])

    asked = [(index, found) for index, found in usable(source, fits, run.damage.note) if found is not None]
    kept = [index for index, found in asked if found]
    if not kept:
        raise ValueError(
            f"{run.config.data.path}: {len(asked)} of {len(source)} records ask a question, and none fits"
        )
    if len(asked) > len(kept):
        run.log(f"   left out: {len(asked) - len(kept)} questions too long for config.data's lengths")

    def read(_: int, index: int) -> dict[str, Any]:
        record = source[index]
        question, reply = _first_question(record)
        return {"images": [*map(decode_image, record["images"])], "question": question, "reply": reply}

    return MappedSource(kept, read)


def _first_question(record: Record) -> tuple[str, str] | None:
    """Question and answer, with what could be taken for a placeholder escaped."""
    if not record["qa"]:
        return None
    first = record["qa"][0]
    return escape_placeholders(first["question"]), escape_placeholders(first["answer"])


def _fits(run: Run, question: str, reply: str, images: Sequence[bytes]) -> bool:
    short = len(run.tokenizer.encode(answer_text(reply)).ids) <= max(run.config.data.branch_lengths)
    prompt = run.wording.question_prompt(question, len(images))
    return short and run.processor.fits(prompt, *map(image_size, images))


def finetune(run: Run, params: Any, name: str, directory: Path, *, blind: bool = False) -> Any:
    """Fine-tunes an arm's parameters on a small question set and returns the new ones.

    Args:
        run: the experiment; for scenes the questions come from the biased training world.
        params: where to begin.
        name: of the arm, for logs.
        directory: where checkpoints go.
        blind: hides the images: what the words alone can teach.
    """
    cfg = run.config.finetune
    step, optimizer = _compiled_step(run.vlm, cfg.learning_rate, cfg.steps)
    return train(
        # Kept: the same parameters are tuned a second time, blind.
        new_state(params, optimizer, run.trains, keep=True),
        step,
        question_batches(run, blind),
        steps=cfg.steps,
        stage=f"{name}_finetune",
        directory=directory / "checkpoints",
        **run.logging,
    ).params


@functools.cache
def _compiled_step(
    model: VLMConfig, learning_rate: float, steps: int
) -> tuple[StepFn, optax.GradientTransformation]:
    """The step that tunes, and its optimizer: one program for all arms."""
    optimizer = make_optimizer(learning_rate=learning_rate, steps=steps)
    return compile_step(make_supervised_step(model, optimizer)), optimizer


def question_batches(run: Run, blind: bool) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Questions with their bare replies; if `blind`, behind hidden images."""
    cfg, data = run.config.finetune, run.config.data
    if data.kind == "scenes":
        scenes = QuestionSource(data.world, split="finetune", stream=run.config.seed, size=cfg.questions)
        source: RandomAccess[Any] = MappedSource(
            scenes, lambda _, scene: scene | {"images": [scene["image"]]}
        )
    else:
        source = record_questions(run)

    def build(batch: dict) -> SupervisedBatch:
        asked = zip(batch["question"], map(len, batch["images"]), strict=True)
        prompts = [run.wording.question_prompt(*question) for question in asked]
        inputs = run.processor.inputs(prompts, [run.processor.view(*images) for images in batch["images"]])
        replies = [[answer_text(reply)] for reply in batch["reply"]]
        branches = encode_branches(run.tokenizer, replies, lengths=data.branch_lengths)
        hidden = np.full(len(replies), blind)
        return run.share.place(SupervisedBatch(*inputs, branches, hidden))

    return run.batches(source, None, build, stream="finetune", batch_size=cfg.batch_size)
