"""How near a policy update comes to the matrix products it is made of: `python -m experiments.benchmarks.update`.

One large product is the yardstick; it takes turns with the updates, so that whatever else the machine does slows all of
them. FLOPs are counted from shapes, the backward pass as two forward passes (`mmrpt_jax/training/compute.py`).

Updates are those of the scenes' experiment, or, with `--size`, of the preset of Qwen2.5-VL with a model of that size:
one prompt of P tokens with its image, G answers of R tokens, all weights in training, layers recomputed (but for
attention). With `--filled`, also that of answers of random lengths, which take that share of R on average and share one
row, as with `config.rl.packed_lengths`: of answers in a row each, the lengths would not matter.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.shapes import Shape, shaped_preset
from experiments.benchmarks.common.sizes import add_size, sized_model
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from experiments.benchmarks.grpo.work import PIXELS
from experiments.configs import mmrpt_scenes
from mmrpt_jax.models import VLMConfig, initialise
from mmrpt_jax.models.packing import pack_lengths
from mmrpt_jax.models.places import Packing
from mmrpt_jax.reporting.command_line import UsageError
from mmrpt_jax.stages.mmrpt.programs import policy_update
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.stages.trained import with_training
from mmrpt_jax.training.compute import update_flops
from mmrpt_jax.training.state import TrainState, new_state

COLUMNS = ("work", "GFLOP", "ms", "ms_low", "ms_high", "GFLOP/s", "of product")
# Rows of the product's matrices; on a card enough that starting it is not what is measured.
_PRODUCT, _PRODUCT_ON_CARD = 2048, 8192


class Work(NamedTuple):
    """Something to time.

    Attributes:
        run: computes it; compiles at its first call.
        flops: of one call.
    """

    run: Callable[[], Any]
    flops: float


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("update", __doc__, repeats=10)
    add_size(parser, default=None)
    parser.add_argument("--group", type=int, default=8, help="with --size: G (%(default)s)")
    parser.add_argument("--prompt", type=int, default=1300, help="with --size: P (%(default)s)")
    parser.add_argument("--answer", type=int, default=512, help="with --size: R (%(default)s)")
    parser.add_argument(
        "--filled", type=_share, default=None, help="with --size: mean length of answers, in units of R"
    )
    return run_benchmark(parser, measure_updates, COLUMNS, title("Policy updates"), argv)


def _share(text: str) -> float:
    """A number between 0 and 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def measure_updates(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The product, and the updates that are asked for.

    Raises:
        UsageError: answers are to be packed, and no size says of what model.
    """
    if options.filled and not options.size:
        raise UsageError("--filled packs the answers of an update with --size: name one")
    rows = _PRODUCT if jax.default_backend() == "cpu" else _PRODUCT_ON_CARD
    works = sized_works(options) if options.size else scenes_works(options)
    return measure(product_work(rows, options.dtype), works, repeats=options.repeats)


def scenes_works(options: argparse.Namespace) -> dict[str, Work]:
    """The scenes' update, and that of a wider model."""
    scenes = mmrpt_scenes.get_config()
    scenes.train.update(param_dtype=options.dtype, compute_dtype=options.dtype)
    return {
        name: policy_work(config, model_config(config, config.tokenizer.vocab_size))
        for name, config in {"scenes": scenes, "4 times as wide": wider(scenes)}.items()
    }


def sized_works(options: argparse.Namespace) -> dict[str, Work]:
    """The update of one prompt by a model of the size that is asked for."""
    model = sized_model(options.size)
    shape = Shape(
        1, options.group, options.prompt, options.answer, patches=(PIXELS // model.vision.patch_size) ** 2
    )
    config = shaped_preset(shape)
    config.train.update(param_dtype=options.dtype, compute_dtype=options.dtype)
    name = f"G={options.group} P={options.prompt} R={options.answer}"
    model = with_training(model, config)
    works = {name: policy_work(config, model)}
    if options.filled:
        lengths = random_lengths(options.group, options.answer, options.filled)
        packing = pack_lengths(lengths, [int(lengths.sum())])
        works[f"{name}, {options.filled} filled"] = policy_work(config, model, packing)
    return works


def random_lengths(group: int, length: int, filled: float) -> Int[np.ndarray, "1 G"]:
    """Lengths of answers, drawn evenly around `filled` of `length`, as far as it goes on both sides."""
    spread = min(filled, 1 - filled)
    shares = np.random.default_rng(0).uniform(filled - spread, filled + spread, (1, group))
    return np.ceil(shares * length).astype(int)


def wider(config: ConfigDict) -> ConfigDict:
    """The same experiment with a model four times as wide, and a quarter of the prompts."""
    config = config.copy_and_resolve_references()
    for stack in (config.model.decoder, config.model.vision.transformer):
        stack.update(
            width=4 * stack.width, mlp=4 * stack.mlp, heads=2 * stack.heads, head_dim=2 * stack.head_dim
        )
        stack.kv_heads = 2 * stack.kv_heads
    config.rl.prompts_per_step //= 4
    return config


def product_work(size: int, dtype: str) -> Work:
    """A product of two square matrices; random, since ones take less power, and a card would clock higher."""
    matrix, multiply = jax.random.normal(jax.random.key(0), (size, size), dtype), jax.jit(jnp.matmul)
    return Work(lambda: multiply(matrix, matrix), 2.0 * size**3)


def policy_work(config: ConfigDict, model: VLMConfig, packing: Packing | None = None) -> Work:
    """The update of `config`, from random weights, on a batch without padding, or on packed answers."""
    step, optimizer, shapes = policy_update(config, model)
    batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)._replace(packing=packing)
    update = jax.jit(step, donate_argnums=0)
    # Put there, as an update's result is: what may be anywhere would make the first update a program of its own.
    params = jax.device_put(initialise(model, jax.random.key(0)), jax.devices()[0])
    state = new_state(params, optimizer)

    def run() -> TrainState:
        nonlocal state
        state, _ = update(state, batch)
        return state

    prompts, group, branch_tokens = batch.branches.ids.shape
    if packing is not None:
        group, branch_tokens = 1, packing.branch.shape[1]
    shape = {"prompts": prompts, "prompt_tokens": batch.prompt.ids.shape[1]}
    counts = config.data.patch_counts
    shape["patches"] = max(counts) if counts else None
    return Work(run, update_flops(model, **shape, group=group, branch_tokens=branch_tokens))


def measure(product: Work, works: Mapping[str, Work], *, repeats: int) -> list[dict[str, Any]]:
    """Times all works in turn, `repeats` times; one row for each, the product first.

    Returns:
        Rows by `COLUMNS`: median and quartiles of milliseconds, speed at the median, and the median share of the
        product's speed in the same turn.
    """
    everything = {"product": product} | dict(works)
    turns = take_turns({name: work.run for name, work in everything.items()}, repeats=repeats)
    return [_row(name, work, turns, product) for name, work in everything.items()]


def _row(name: str, work: Work, turns: Sequence[Mapping[str, float]], product: Work) -> dict[str, Any]:
    shares = [work.flops / turn[name] / (product.flops / turn["product"]) for turn in turns]
    low, middle, high = quartiles([turn[name] for turn in turns])
    giga, times = work.flops / 1e9, (1e3 * middle, 1e3 * low, 1e3 * high)
    return dict(zip(COLUMNS, (name, giga, *times, giga / middle, statistics.median(shares)), strict=True))


if __name__ == "__main__":
    sys.exit(main())
