"""How fast answers are sampled, and what memory's speed allows: `python -m experiments.benchmarks.rollout`.

Behind one prompt, G answers of R tokens. Prefill is the prompt alone; decoding is the rest. Its floor is what every
step must read (all weights of the decoder, the prompt's keys and values once, the branches' as far as they have got)
over this machine's bandwidth, measured by copying in the same turns.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.sizes import add_size, sized_model, text_prompt
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from mmrpt_jax.models import VLM, VLMConfig, count_parameters, initialise
from mmrpt_jax.sampling import make_rollout

COLUMNS = ("G", "P", "R", "prefill ms", "decode ms", "tokens/s", "floor ms", "of bandwidth")
# Bytes; more than caches hold, and on a card enough that starting the copy is not what is measured.
_COPIED, _COPIED_ON_CARD = 1 << 28, 1 << 32


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("rollout", __doc__, repeats=7)
    add_size(parser)
    parser.add_argument("--group", type=int, nargs="+", default=[4, 8, 16], help="G, answers behind a prompt")
    parser.add_argument(
        "--prompt", type=int, nargs="+", default=[256, 640, 1300], help="P, tokens of a prompt"
    )
    parser.add_argument("--answer", type=int, nargs="+", default=[64], help="R, tokens of an answer")
    return run_benchmark(parser, measure_rollouts, COLUMNS, title("Rollouts"), argv)


def measure_rollouts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every size."""
    model = sized_model(options.size, options.dtype)
    params = initialise(model, jax.random.key(0))
    sizes = itertools.product(options.group, options.prompt, options.answer)
    return [measure(model, params, *size, repeats=options.repeats) for size in sizes]


def measure(
    model: VLMConfig, params: Any, group: int, prompt: int, answer: int, *, repeats: int
) -> dict[str, Any]:
    """Times prefill, the whole rollout and a copy in turn; one row by `COLUMNS`."""
    tokens = text_prompt(prompt)
    # No token ends an answer.
    rollout = jax.jit(make_rollout(model, group_size=group, max_tokens=answer, end_ids=()))
    copied = _COPIED if jax.default_backend() == "cpu" else _COPIED_ON_CARD
    prefill = jax.jit(lambda p, t: VLM(model).apply({"params": p}, None, t, method=VLM.encode_prompt))
    works: dict[str, Callable[[], Any]] = {
        "copy": copying(copied),
        "prefill": lambda: prefill(params, tokens),
        "rollout": lambda: rollout(params, None, tokens, jax.random.key(0)),
    }
    turns = take_turns(works, repeats=repeats)
    decode = [turn["rollout"] - turn["prefill"] for turn in turns]
    read = bytes_to_read(model, params, group=group, prompt=prompt, answer=answer)
    # A copy reads and writes.
    floors = [read * turn["copy"] / (2 * copied) for turn in turns]
    middle = quartiles(decode)[1]
    shares = [floor / seconds for floor, seconds in zip(floors, decode, strict=True)]
    prefilled = 1e3 * quartiles([turn["prefill"] for turn in turns])[1]
    values = (group, prompt, answer, prefilled, 1e3 * middle, group * answer / middle)
    return dict(
        zip(COLUMNS, (*values, 1e3 * statistics.median(floors), statistics.median(shares)), strict=True)
    )


def copying(size: int) -> Callable[[], Any]:
    """Copies an array of so many bytes."""
    array, copy = jnp.ones(size // 4), jax.jit(lambda x: x + 1)
    return lambda: copy(array)


def bytes_to_read(model: VLMConfig, params: Any, *, group: int, prompt: int, answer: int) -> int:
    """Bytes that `answer` decoding steps cannot do without."""
    decoder = model.decoder
    weights = count_parameters(params["decoder"]) + model.vocab_size * decoder.width
    keys_values = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim
    # In step i, each branch has i keys of its own.
    positions = answer * prompt + group * answer * (answer - 1) // 2
    return (
        answer * weights * jnp.dtype(model.param_dtype).itemsize
        + positions * keys_values * jnp.dtype(model.compute_dtype).itemsize
    )


if __name__ == "__main__":
    sys.exit(main())
