"""Robustness under supervised fine-tuning: a small, biased question set, and what it does to the flipped world."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmrpt_jax.data.examples import stack_images
from mmrpt_jax.data.prompts import answer_text, encode_branches, encode_prompts, question_prompt
from mmrpt_jax.scenes import WORLDS, ask, render, sample_scene, split_seed
from mmrpt_jax.stages.run import Run, batches
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.state import make_optimizer, new_state
from mmrpt_jax.training.supervised import SupervisedBatch, make_supervised_step


class QuestionSource:
    """`size` scenes of a world with the questions that come naturally: answers follow the world's bias."""

    def __init__(self, world: str, *, stream: int, size: int):
        self._world, self._seed, self._size = WORLDS[world], split_seed("finetune", stream), size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = sample_scene(self._world, self._seed, index)
        questions = ask(scene, self._seed, index)
        chosen = questions[index % len(questions)]
        return {"image": render(scene), "question": chosen.question, "reply": chosen.reply}


def finetune(run: Run, params: Any, name: str, directory: Path) -> Any:
    """Fine-tunes an arm's parameters on the biased question set and returns the new ones."""
    cfg = run.config.finetune
    optimizer = make_optimizer(learning_rate=cfg.learning_rate, steps=cfg.steps)
    return train(
        new_state(params, optimizer),
        jax.jit(make_supervised_step(run.model, optimizer), donate_argnums=0),
        _question_batches(run),
        steps=cfg.steps,
        stage=f"{name}_finetune",
        directory=directory / "checkpoints",
        **run.logging,
    ).params


def _question_batches(run: Run) -> Callable[[int], Iterator[SupervisedBatch]]:
    cfg, data = run.config.finetune, run.config.data
    source = QuestionSource(data.world, stream=run.config.seed, size=cfg.questions)

    def build(batch: dict) -> SupervisedBatch:
        prompts = encode_prompts(
            run.tokenizer,
            [question_prompt(question) for question in batch["question"]],
            image_tokens=run.model.vision.num_patches,
            lengths=data.prompt_lengths,
        )
        replies = [[answer_text(reply)] for reply in batch["reply"]]
        branches = encode_branches(run.tokenizer, replies, lengths=data.branch_lengths)
        blind = np.zeros(len(replies), bool)
        return run.place(SupervisedBatch(stack_images(batch["image"]), prompts, branches, blind))

    return batches(source, None, build, seed=run.config.seed, batch_size=cfg.batch_size)
