"""What it costs to know which words look at the image: `python -m experiments.benchmarks.dependency`.

A sequence of T tokens, half of them a caption. `plain` is the forward pass; `mass` also returns, for all layers and
heads, the attention of every caption token to the image, and what every image token received. With `--transformers`
the way that its users have to the same numbers runs beside us, in the virtual environment of `grpo_step`'s TRL: the
same model with all attention maps (`output_attentions`), and its own plain pass (sdpa).

Memory is XLA's count of temporaries for us, and for `transformers` what the process took above the imported libraries.
On a GPU that is what was allocated there beside the weights. Maps are the T x T numbers of all layers and heads, in the
type that is computed in.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.environments import SIDES, add_environments, peer_python, run_side
from experiments.benchmarks.common.sizes import SIZES, add_size, sized_model, text_prompt
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from mmrpt_jax.models import VLM, BranchTokens, PromptTokens, VLMConfig, initialise

COLUMNS = ("T", "who", "work", "ms", "of plain", "MiB", "of maps")
# Tokens between the image and the caption.
_INSTRUCTION = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("dependency", __doc__, repeats=7)
    add_size(parser)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096], help="T")
    parser.add_argument("--transformers", action="store_true", help="run `transformers` beside us")
    add_environments(parser)
    return run_benchmark(parser, measure_dependency, COLUMNS, title("Scores of attention"), argv)


def measure_dependency(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows for every length."""
    model = sized_model(options.size, options.dtype)
    params = initialise(model, jax.random.key(0))
    rows: list[dict[str, Any]] = []
    for tokens in options.tokens:
        rows += ours(model, params, tokens, repeats=options.repeats)
        if options.transformers:
            rows += theirs(options, model, tokens)
    return rows


def ours(model: VLMConfig, params: Any, tokens: int, *, repeats: int) -> Iterator[dict[str, Any]]:
    """The plain pass and the one with the attention that is asked for, in turn."""
    inputs = caption_behind_image(tokens)
    regions = (jnp.arange(tokens // 2) < visual(tokens)).astype(jnp.float32)[None, :, None]
    asked = {"plain": (), "mass": (regions, jnp.ones(inputs[1].ids.shape))}
    run = jax.jit(lambda params, prompt, caption, *more: behind(model, params, prompt, caption, *more))
    compiled = {name: run.lower(params, *inputs, *more).compile() for name, more in asked.items()}

    def work(name: str) -> Callable[[], Any]:
        return lambda: compiled[name](params, *inputs, *asked[name])

    turns = take_turns({name: work(name) for name in asked}, repeats=repeats)
    for name, program in compiled.items():
        held = program.memory_analysis().temp_size_in_bytes
        ratios = [turn[name] / turn["plain"] for turn in turns]
        middle = quartiles([turn[name] for turn in turns])[1]
        yield _row(model, tokens, "ours", name, middle, quartiles(ratios)[1], held)


def theirs(options: argparse.Namespace, model: VLMConfig, tokens: int) -> Iterator[dict[str, Any]]:
    """Their plain pass and their maps, a process for each, so that each has its own peak of memory."""
    python = peer_python("trl", options.environments.absolute())
    text = SIZES[options.size]["text_config"]
    work = {
        "tokens": tokens,
        "visual": visual(tokens),
        "repeats": options.repeats,
        # But for rotary positions: those of text alone have no sections.
        "decoder": {name: value for name, value in text.items() if not name.startswith("rope")},
        "dtype": options.dtype,
        "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
    }
    plain = 0.0
    for name in ("plain", "maps"):
        found = run_side([str(python), str(SIDES / "transformers_side.py")], work | {"mode": name})
        middle = quartiles(found["seconds"])[1]
        plain = plain or middle
        yield _row(model, tokens, "transformers", name, middle, middle / plain, found["held_bytes"])


def visual(tokens: int) -> int:
    """Tokens of the image in a sequence of `tokens`."""
    return tokens // 2 - _INSTRUCTION


def caption_behind_image(tokens: int) -> tuple[PromptTokens, BranchTokens]:
    """Half of the tokens are a prompt, whose image is taken for text here, half a caption."""
    caption = (1, 1, tokens - tokens // 2)
    return text_prompt(tokens // 2), BranchTokens(jnp.ones(caption, jnp.int32), jnp.ones(caption, bool))


def behind(model: VLMConfig, params: Any, prompt: PromptTokens, caption: BranchTokens, *asked: Any) -> Any:
    """Features of the caption, and what was seen of attention if regions and query weights are given."""
    inputs = (None, prompt, caption, *asked)
    hidden, seen = VLM(model).apply({"params": params}, *inputs, method=VLM.run_group)
    return hidden, seen.mass, seen.received


def _row(
    model: VLMConfig, tokens: int, who: str, work: str, seconds: float, of_plain: float, held: float
) -> dict[str, Any]:
    number = jnp.dtype(model.compute_dtype).itemsize
    maps = model.decoder.layers * model.decoder.heads * tokens**2 * number
    values = (tokens, who, work, 1e3 * seconds, of_plain, held / 2**20, held / maps)
    return dict(zip(COLUMNS, values, strict=True))


if __name__ == "__main__":
    sys.exit(main())
