"""What a prompt costs before the model sees it, per core, against the update that reads it.

    python -m experiments.benchmarks.input

Photographs are stood in for by a smooth picture with noise, a JPEG of 640 × 480 pixels. Patches are Qwen2.5-VL's, the
model is that of `grpo_step`: one image and 640 tokens, eight answers of 64.
"""

import argparse
import functools
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.sizes import sized_model
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from experiments.benchmarks.grpo.material import write_material
from experiments.benchmarks.grpo.ours import open_processor
from experiments.benchmarks.grpo.work import LEARNING_RATE, Work
from mmrpt_jax.assets import SCENES_TOKENIZER
from mmrpt_jax.data.images import decode_image
from mmrpt_jax.data.tokenizer import IMAGE, load_tokenizer
from mmrpt_jax.models import BranchTokens, initialise
from mmrpt_jax.scenes import WORLDS, describe, sample_scene
from mmrpt_jax.training.policy import PolicyBatch, make_policy_step
from mmrpt_jax.training.state import compile_step, make_optimizer, new_state

COLUMNS = ("work", "ms", "ms_low", "ms_high", "per second", "of update")
_SIZE = (640, 480)
_SHAPE = {"group": 8, "prompt": 640, "answer": 64}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("input", __doc__, repeats=20)
    return run_benchmark(parser, measure, COLUMNS, title("Input of a prompt"), argv)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each part, their sum, and the update; parts run in one thread."""
    with tempfile.TemporaryDirectory() as folder:
        write_material(Path(folder), [("vlm", _SHAPE["prompt"])])
        work = Work(kind="vlm", steps=1, folder=folder, **_SHAPE)
        processor = open_processor(work, sized_model())
        pixels = np.asarray(Image.open(Path(folder, "image.png")))
        # The other tokenizer's vocabulary is made up.
        tokenizer, caption = (
            load_tokenizer(SCENES_TOKENIZER),
            describe(sample_scene(WORLDS["biased"], 0, 0), 0, 0).text,
        )
        data = _photograph()
        works = {
            "decode a JPEG": lambda: decode_image(data),
            "resize it, cut patches": functools.partial(processor.view, decode_image(data)),
            "tokenise its caption": lambda: tokenizer.encode(caption).ids,
            "update": _update(processor.inputs([f"{IMAGE}a"], [processor.view(pixels)])),
        }
        turns = take_turns(works, repeats=options.repeats)
    parts = [name for name in works if name != "update"]
    for turn in turns:
        turn["all of it"] = sum(turn[name] for name in parts)
    return [_row(name, turns) for name in (*parts, "all of it", "update")]


def _row(name: str, turns: Sequence[dict[str, float]]) -> dict[str, Any]:
    low, middle, high = quartiles([turn[name] for turn in turns])
    share = quartiles([turn[name] / turn["update"] for turn in turns])[1]
    times = (1e3 * middle, 1e3 * low, 1e3 * high)
    return dict(zip(COLUMNS, (name, *times, 1 / middle, share), strict=True))


def _photograph() -> bytes:
    """Shades with a little noise, which compress as photographs do: about 1.5 bits per pixel."""
    rng, (width, height) = np.random.default_rng(0), _SIZE
    shades = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8)).resize(_SIZE)
    noisy = np.asarray(shades, np.int16) + rng.integers(-8, 9, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _update(inputs: Any):
    """A policy update on one prompt and its answers, from random weights."""
    model, shape = sized_model(), (1, _SHAPE["group"], _SHAPE["answer"])
    banned, optimizer = (
        jnp.zeros(model.vocab_size, bool),
        make_optimizer(learning_rate=LEARNING_RATE, steps=1),
    )
    step = make_policy_step(model, optimizer, temperature=1.0, banned=banned, variant="grpo", kl="none")
    update, state = compile_step(step), new_state(initialise(model, jax.random.key(0)), optimizer)
    branches = BranchTokens(jnp.ones(shape, jnp.int32), jnp.ones(shape, bool))
    learned = (jnp.zeros(shape), jnp.ones(shape[:2]), jnp.ones(shape[:2], bool), None)
    batch = PolicyBatch(*jax.device_put(inputs), branches, *learned)

    def run() -> Any:
        nonlocal state
        state, _ = update(state, batch)
        return state

    return run


if __name__ == "__main__":
    sys.exit(main())
