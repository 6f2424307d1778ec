"""Captions as batches: the prompt that asks for them, and what is to be imitated behind it."""

from collections.abc import Callable, Iterator

import numpy as np

from mmrpt_jax.data.examples import PickCaptions, stack_images
from mmrpt_jax.data.prompts import caption_prompt, encode_branches
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.stages.run import Run, batches
from mmrpt_jax.training.supervised import SupervisedBatch


def caption_batches(run: Run, suffix: str) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Images with some of their captions; a share of the images is hidden: the model also learns to be blind."""
    cfg, data = run.config.caption, run.config.data
    source = run.source(captions=cfg.captions_per_image, size=data.caption_records)

    def build(batch: dict) -> SupervisedBatch:
        images = stack_images(batch["image"])
        texts = [[f"{caption}{EOS}" for caption in captions] for captions in batch["captions"]]
        built = SupervisedBatch(
            images,
            run.prompts([caption_prompt()] * len(images)),
            encode_branches(run.tokenizer, texts, lengths=data.caption_lengths),
            np.arange(len(images)) < round(cfg.image_dropout * len(images)),
        )
        return run.place(built)

    transform = PickCaptions(*run.image_shape, cfg.captions_per_image, run.augment)
    return batches(
        source, transform, build, seed=run.data_seed(f"caption{suffix}"), batch_size=cfg.batch_size
    )
