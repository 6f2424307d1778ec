"""Stage 1: next-token pre-training on image-caption pairs, the descriptive baseline and the starting policy."""

from collections.abc import Callable, Iterator
from pathlib import Path

from mmrpt_jax.data.examples import HideRandomSpan
from mmrpt_jax.data.prompts import completion, encode_branches
from mmrpt_jax.stages.captions import caption_batches
from mmrpt_jax.stages.completion import is_complete, mark_complete
from mmrpt_jax.stages.run import Run
from mmrpt_jax.training.loop import train
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state
from mmrpt_jax.training.supervised import SupervisedBatch, make_supervised_step


def run_caption(run: Run) -> None:
    """Trains the base model from where the run begins, and writes `base/weights.safetensors`; no steps, no file."""
    directory, cfg = run.workdir / "base", run.config.caption
    if is_complete(directory):
        return
    if cfg.steps:
        target = directory / "checkpoints"
        params = caption(run, run.first_weights(), steps=cfg.steps, stage="caption", directory=target)
        run.save(directory / "weights.safetensors", params)
    mark_complete(directory, {"steps": cfg.steps, "init": dict(run.config.init)})


def caption(run: Run, params, *, steps: int, stage: str, directory: Path, suffix: str = ""):
    """Trains on captions from `params` for `steps` and returns the new parameters.

    `suffix` names the data order: "" is the base's, "_control" reads captions that the base has not seen.
    """
    cfg = run.config.caption
    optimizer = make_optimizer(
        learning_rate=cfg.learning_rate, steps=steps, warmup=cfg.warmup, weight_decay=0.01
    )
    state = train(
        new_state(params, optimizer, run.trains),
        compile_step(make_supervised_step(run.vlm, optimizer, micro_batches=cfg.micro_batches)),
        pretraining_batches(run, suffix),
        steps=steps,
        stage=stage,
        directory=directory,
        **run.logging,
    )
    return state.params


def pretraining_batches(run: Run, suffix: str) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Captions, and with `infill_every` = n every n-th batch blanks: random spans of captions to be filled in.

    Infilling (Bavarian et al., arXiv 2207.14255) is imitation like the rest, of words that need the image or not. It is
    what lets the base try at a blank at all: a policy can only be reinforced in what it sometimes does.
    """
    captions, every = caption_batches(run, suffix), run.config.caption.infill_every
    if not every:
        return captions
    blanks = infill_batches(run, suffix)

    def open_at(step: int) -> Iterator[SupervisedBatch]:
        # Batch n - 1 of every n is a blank, so `step // n` of the batches before `step` were.
        streams = captions(step - step // every), blanks(step // every)
        while True:
            yield next(streams[step % every == every - 1])
            step += 1

    return open_at


def infill_batches(run: Run, suffix: str) -> Callable[[int], Iterator[SupervisedBatch]]:
    """Images with a caption from which a random span is missing, and the span."""
    cfg, data = run.config.caption, run.config.data
    source = run.source(captions=1, size=data.caption_records)

    def build(batch: dict) -> SupervisedBatch:
        prompts = run.fill_prompts(batch["masked"], batch["view"])
        answers = [[completion("", answer)] for answer in batch["answer"]]
        built = SupervisedBatch(
            *run.processor.inputs(prompts, batch["view"]),
            encode_branches(run.tokenizer, answers, lengths=data.branch_lengths),
            run.share.rows(cfg.batch_size) < round(cfg.image_dropout * cfg.batch_size),
        )
        return run.share.place(built)

    transform = HideRandomSpan(run.see, run.config.mask.max_words, run.config.mask.context)
    return run.batches(source, transform, build, stream=f"infill{suffix}", batch_size=cfg.batch_size)
