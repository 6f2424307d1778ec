"""Captions as batches: the prompt that asks for them, and what is to be imitated behind it."""

from collections.abc import Callable, Iterator

from mmrpt_jax.data.examples import PickCaptions
from mmrpt_jax.data.prompts import encode_branches
from mmrpt_jax.data.tokenizer import EOS
from mmrpt_jax.stages.run import Run
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
            run.share.rows(cfg.batch_size) < round(cfg.image_dropout * cfg.batch_size),
        )
        return run.share.place(built)

    transform = PickCaptions(run.see, cfg.captions_per_image)
    return run.batches(source, transform, build, stream=f"caption{suffix}", batch_size=cfg.batch_size)
