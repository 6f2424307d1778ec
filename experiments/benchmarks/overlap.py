"""What a slow reward costs a step that samples in parts: `python -m experiments.benchmarks.overlap`.

B groups of G answers are sampled, rewarded and compared, as a step does before its update. The reward waits as if for a
judge behind HTTP that takes `--width` requests at a time and so long for each (`--latency`); without latency it is as
cheap as a rule. In parts, it waits while the devices sample; but every part reads all weights for each of its tokens.
"""

import argparse
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.sizes import add_size, sized_model, text_prompt
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from experiments.configs import mmrpt_scenes
from mmrpt_jax.data.tokenizer import load_tokenizer
from mmrpt_jax.models import initialise
from mmrpt_jax.objectives import sum_then_normalise
from mmrpt_jax.rewards import RewardFn
from mmrpt_jax.sampling import make_rollout
from mmrpt_jax.training.answers import Answering, PromptBatch, collect_answers

COLUMNS = ("latency s", "parts", "step s", "lower", "upper", "of one part")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("overlap", __doc__, repeats=7)
    add_size(parser)
    parser.add_argument("--prompts", type=int, default=8, help="B, prompts of a step (%(default)s)")
    parser.add_argument("--group", type=int, default=8, help="G, answers behind a prompt (%(default)s)")
    parser.add_argument("--prompt", type=int, default=256, help="P, tokens of a prompt (%(default)s)")
    parser.add_argument("--answer", type=int, default=32, help="R, tokens of an answer (%(default)s)")
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4], help="that B divides into")
    parser.add_argument("--latency", type=float, nargs="+", default=[0.0, 0.2], help="seconds of a request")
    parser.add_argument("--width", type=int, default=8, help="requests at a time (%(default)s)")
    return run_benchmark(parser, measure_steps, COLUMNS, title("Steps before their update"), argv)


def measure_steps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every latency and number of parts; all take turns."""
    collect = collecting(options)
    cases = list(itertools.product(options.latency, options.parts))
    works = {str(case): functools.partial(collect, *case) for case in cases}
    turns = take_turns(works, repeats=options.repeats)
    rows = []
    for latency, parts in cases:
        seconds = [turn[str((latency, parts))] for turn in turns]
        whole = [turn[str((latency, options.parts[0]))] for turn in turns]
        low, middle, high = quartiles(seconds)
        ratio = quartiles([mine / its for mine, its in zip(seconds, whole, strict=True)])[1]
        rows.append(dict(zip(COLUMNS, (latency, parts, middle, low, high, ratio), strict=True)))
    return rows


def collecting(options: argparse.Namespace) -> Callable[[float, int], Any]:
    """(latency, parts) -> what a step learns from."""
    model = sized_model(options.size, options.dtype)
    params = initialise(model, jax.random.key(0))
    tokenizer = load_tokenizer(mmrpt_scenes.get_config().init.tokenizer)
    # No token ends an answer; what is sampled must have a text.
    rollout = make_rollout(
        model,
        group_size=options.group,
        max_tokens=options.answer,
        end_ids=(),
        banned=jnp.arange(model.vocab_size) >= tokenizer.vocab_size,
    )
    compiled = jax.jit(rollout)
    batch = PromptBatch(None, text_prompt(options.prompt, options.prompts), [""] * options.prompts, {})

    def collect(latency: float, parts: int) -> Any:
        answering = Answering(
            rollout=compiled,
            rewards={"judge": (make_judge(latency, options.width), 1.0)},
            advantage=sum_then_normalise,
            tokenizer=tokenizer,
            group_size=options.group,
            rollout_parts=parts,
        )
        return collect_answers(answering, params, batch, jax.random.key(0), 0)

    return collect


def make_judge(latency: float, width: int) -> RewardFn:
    """A reward that waits as for a server that takes `width` requests at a time, `latency` seconds each."""

    def judge(completions: Sequence[str], **columns: Any) -> list[float]:
        time.sleep(latency * math.ceil(len(completions) / width))
        return [float(len(text) % 2) for text in completions]

    return judge


if __name__ == "__main__":
    sys.exit(main())
