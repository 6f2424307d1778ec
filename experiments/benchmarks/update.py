"""How near a policy update comes to the matrix products it is made of: `python -m experiments.benchmarks.update`.

One large product is the yardstick; it takes turns with the updates, so that whatever else the machine does slows all of
them. FLOPs are counted from shapes, the backward pass as two forward passes (`mmrpt_jax/training/compute.py`).
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from experiments.configs import mmrpt_scenes
from mmrpt_jax.models import initialise
from mmrpt_jax.stages.mmrpt.programs import policy_update
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.training.compute import update_flops
from mmrpt_jax.training.state import TrainState, new_state

COLUMNS = ("work", "GFLOP", "ms", "ms_low", "ms_high", "GFLOP/s", "of product")
_PRODUCT = 2048


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
    return run_benchmark(parser, measure_updates, COLUMNS, title("Policy updates"), argv)


def measure_updates(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The product, the scenes' update, and that of a wider model."""
    scenes = mmrpt_scenes.get_config()
    works = {"scenes": policy_work(scenes), "4 times as wide": policy_work(wider(scenes))}
    return measure(product_work(_PRODUCT), works, repeats=options.repeats)


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


def product_work(size: int) -> Work:
    """A float32 product of two square matrices."""
    matrix, multiply = jnp.ones((size, size)), jax.jit(jnp.matmul)
    return Work(lambda: multiply(matrix, matrix), 2.0 * size**3)


def policy_work(config: ConfigDict) -> Work:
    """The update of `config`, from random weights, on a batch without padding."""
    model = model_config(config, config.tokenizer.vocab_size)
    step, optimizer, shapes = policy_update(config, model)
    batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    update = jax.jit(step, donate_argnums=0)
    # Put there, as an update's result is: what may be anywhere would make the first update a program of its own.
    params = jax.device_put(initialise(model, jax.random.key(0)), jax.devices()[0])
    state = new_state(params, optimizer)

    def run() -> TrainState:
        nonlocal state
        state, _ = update(state, batch)
        return state

    prompts, group, branch_tokens = batch.branches.ids.shape
    shape = {"prompts": prompts, "prompt_tokens": batch.prompt.ids.shape[1]}
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
