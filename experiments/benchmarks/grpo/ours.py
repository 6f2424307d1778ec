"""Our side of `grpo_step`: rollout, judgement and update of the package, put together as its stages do."""

import functools
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from experiments.benchmarks.common.sizes import model_in
from experiments.benchmarks.grpo.work import (
    LEARNING_RATE,
    PIXELS,
    Stopwatch,
    Work,
    count_letters,
    from_command_line,
    jax_device,
    model_numbers,
    prompts,
)
from mmrpt_jax.data.checkpoint_processor import CheckpointProcessor
from mmrpt_jax.data.checkpoint_tokenizer import load_checkpoint_tokenizer
from mmrpt_jax.data.preprocessing.families import image_text, read_preprocessor
from mmrpt_jax.data.prompts import pad_prompts
from mmrpt_jax.data.tokenizer import IMAGE
from mmrpt_jax.models import VLMConfig, initialise
from mmrpt_jax.models.sharding import batch_sharding, make_mesh
from mmrpt_jax.objectives import sum_then_normalise
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.training.answers import Answering, PromptBatch, collect_answers
from mmrpt_jax.training.policy import make_policy_step
from mmrpt_jax.training.reinforce import make_reinforcement_step
from mmrpt_jax.training.state import TrainState, compile_step, make_optimizer, new_state


def main(work: Work) -> None:
    """Takes the steps and prints one line about them."""
    watch, mesh = Stopwatch(), make_mesh(devices=jax.devices()[:1])
    # As the presets of published checkpoints have it.
    model = model_in(model_numbers(work), work.dtype, remat="keep_attention")
    processor = open_processor(work, model)
    step, optimizer = make_step(work, watch, model, processor)
    # Text has no use for the tower.
    trains = None if work.kind == "vlm" else lambda path: not path.startswith("vision")
    state = new_state(initialise(model, jax.random.key(0), mesh), optimizer, trains)
    shapes = set()

    def whole(state: TrainState, number: int) -> TrainState:
        batch = open_batch(work, processor, number, mesh)
        state, metrics = step(state, batch)
        shapes.add((int(np.sum(batch.prompt.valid)), int(metrics["tokens_per_completion"])))
        return state

    whole = watch.timed("step", whole, jax.block_until_ready)
    for number in range(work.steps):
        state = whole(state, number)
    [(prompt_tokens, answer_tokens)] = shapes
    versions = {name: version(name) for name in ("jax", "flax", "optax")}
    counted = {"prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
    watch.report(work, **counted, versions=versions, **jax_device(jax.devices()[0]))


def make_step(work: Work, watch: Stopwatch, model: VLMConfig, processor: CheckpointProcessor):
    """(state, batch) -> (state, metrics), and the optimizer; the parts are timed."""
    banned = jnp.zeros(model.vocab_size, bool)
    optimizer = make_optimizer(learning_rate=LEARNING_RATE, steps=work.steps)
    # No token ends an answer, as the peers are told to write answers of full length.
    rollout = make_rollout(model, group_size=work.group, max_tokens=work.answer, end_ids=(), banned=banned)
    loss = {"variant": "grpo", "kl": "none"}
    update = make_policy_step(model, optimizer, temperature=1.0, banned=banned, **loss)
    parts = Answering(
        rollout=watch.timed("generate", jax.jit(rollout), jax.block_until_ready),
        rewards={"letters": (count_letters, 1.0)},
        advantage=sum_then_normalise,
        tokenizer=processor.tokenizer,
        group_size=work.group,
    )
    collect = watch.timed("collect", functools.partial(collect_answers, parts), jax.block_until_ready)
    return make_reinforcement_step(collect, compile_step(update), jax.random.key(0)), optimizer


def open_processor(work: Work, model: VLMConfig) -> CheckpointProcessor:
    """What the model reads, in buckets that fit exactly."""
    folder, text = Path(work.folder), image_text("qwen2_5_vl")
    tokenizer = load_checkpoint_tokenizer(folder, image_token=text.token)
    buckets = {"lengths": (work.prompt,), "patch_counts": ((PIXELS // model.vision.patch_size) ** 2,)}
    return CheckpointProcessor(tokenizer, read_preprocessor(folder), text, **buckets)


def open_batch(work: Work, processor: CheckpointProcessor, number: int, mesh: Mesh) -> PromptBatch:
    """One prompt; its image is read and cut anew for every step, as the peers do."""
    texts = prompts(work)
    text = texts[number % len(texts)]
    if work.kind == "vlm":
        pixels = np.asarray(Image.open(Path(work.folder, "image.png")))
        images, prompt = processor.inputs([f"{IMAGE}{text}"], [processor.view(pixels)])
    else:
        ids = processor.tokenizer.encode(text).ids
        images, prompt = None, pad_prompts(processor.tokenizer, [ids], lengths=(work.prompt,))
    return PromptBatch(*jax.device_put((images, prompt), batch_sharding(mesh)), [text], {})


if __name__ == "__main__":
    main(from_command_line())
