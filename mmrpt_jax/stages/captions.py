"""Captions as batches: the prompt that asks for them, and what is to be imitated behind it."""

from collections.abc import Callable, Iterator

import numpy as np

from mmrpt_jax.data.examples import PickCaptions
from mmrpt_jax.data.prompts import encode_branches
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.stages.run import Run, batches
from mmrpt_jax.training.supervised import SupervisedBatch


def caption_batches(run: Run, suffix: str) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Images with some of their captions; a share of the prompts hides them: the model also learns to be blind."""
    cfg, data = run.config.caption, run.config.data
    source = run.source(captions=cfg.captions_per_image, size=data.caption_records)

    def build(batch: dict) -> SupervisedBatch:
        views = batch["view"]
        texts = [[f"{caption}{EOS}" for caption in captions] for captions in batch["captions"]]
        built = SupervisedBatch(
            *run.processor.inputs(run.caption_prompts(views), views),
            encode_branches(run.tokenizer, texts, lengths=data.caption_lengths),
            np.arange(len(views)) < round(cfg.image_dropout * len(views)),
        )
        return run.place(built)

    transform = PickCaptions(run.see, cfg.captions_per_image)
    seed, note = run.data_seed(f"caption{suffix}"), run.damage.note
    return batches(source, transform, build, seed=seed, batch_size=cfg.batch_size, note=note)
