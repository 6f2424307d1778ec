"""How near a policy update comes to the matrix products it is made of: `python -m experiments.benchmarks.update`.

One large product is the yardstick; it takes turns with the updates, so that whatever else the machine does slows all of
them. FLOPs are counted from shapes, the backward pass as two forward passes (`mmrpt_jax/training/compute.py`).
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import ConfigDict

from experiments.configs import mmrpt_scenes
from mmrpt_jax.models import initialise
from mmrpt_jax.reporting.table import format_table, write_table
from mmrpt_jax.stages.mmrpt.programs import policy_update
from mmrpt_jax.stages.opening import model_config
from mmrpt_jax.training.compute import update_flops
from mmrpt_jax.training.state import new_state

_OUT = flags.DEFINE_string("out", "", "Stem of <out>.json and <out>.txt; nothing is written if empty.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 10, "Measurements of each; the table has their median and quartiles."
)

COLUMNS = ("work", "GFLOP", "ms", "ms_low", "ms_high", "GFLOP/s", "of product")
_PRODUCT = 2048


class Work(NamedTuple):
    """Something to time.

    Attributes:
        run: computes it and waits for it; compiles at its first call.
        flops: of one call.
    """

    run: Callable[[], Any]
    flops: float


def main(_: list[str]) -> None:
    """Entry point."""
    scenes = mmrpt_scenes.get_config()
    works = {"scenes": policy_work(scenes), "4 times as wide": policy_work(wider(scenes))}
    rows = measure(product_work(_PRODUCT), works, repeats=_REPEATS.value)
    print(format_table(rows, COLUMNS))
    if _OUT.value:
        device = jax.devices()[0]
        write_table(
            _OUT.value, rows, COLUMNS, title=f"Policy updates on {jax.device_count()} × {device.device_kind}"
        )


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
    return Work(lambda: jax.block_until_ready(multiply(matrix, matrix)), 2.0 * size**3)


def policy_work(config: ConfigDict) -> Work:
    """The update of `config`, from random weights, on a batch without padding."""
    model = model_config(config, config.tokenizer.vocab_size)
    step, optimizer, shapes = policy_update(config, model)
    batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    update = jax.jit(step, donate_argnums=0)
    state = new_state(initialise(model, jax.random.key(0)), optimizer)

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(update(state, batch))

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
    for work in everything.values():
        work.run()
    turns = [{name: _seconds(work) for name, work in everything.items()} for _ in range(repeats)]
    return [_row(name, work, turns, product) for name, work in everything.items()]


def _row(name: str, work: Work, turns: Sequence[Mapping[str, float]], product: Work) -> dict[str, Any]:
    seconds = [turn[name] for turn in turns]
    shares = [work.flops / turn[name] / (product.flops / turn["product"]) for turn in turns]
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    giga, times = work.flops / 1e9, (1e3 * middle, 1e3 * low, 1e3 * high)
    return dict(zip(COLUMNS, (name, giga, *times, giga / middle, statistics.median(shares)), strict=True))


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work.run()
    return time.perf_counter() - start


if __name__ == "__main__":
    app.run(main)
