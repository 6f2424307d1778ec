"""What a group of drawings costs behind prompts of any length: `python -m experiments.benchmarks.image_rollout`.

G images of 64 latent tokens are carried from noise to data. `once` is ours: the prompt is computed before the first
step, and a step forwards latents alone. `every step` forwards the prompt with them each time, as a program does that
keeps nothing of it. The time of a step is a slope: the time of many steps minus that of few, over the difference.
"""

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.common.command import benchmark_parser, run_benchmark
from experiments.benchmarks.common.sizes import sized_model, text_prompt
from experiments.benchmarks.common.timing import quartiles, take_turns, title
from mmrpt_jax.models import LatentConfig, UnifiedConfig, initialise
from mmrpt_jax.objectives import timesteps
from mmrpt_jax.sampling import Conditions, FlowSampler, make_image_rollout
from mmrpt_jax.sampling.field import make_field
from mmrpt_jax.sampling.guidance import UNGUIDED

COLUMNS = ("G", "P", "steps", "once ms", "a step ms", "every step ms", "times slower")
_FEW = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = benchmark_parser("image_rollout", __doc__, repeats=5)
    parser.add_argument("--group", type=int, nargs="+", default=[8], help="G, images of a prompt")
    parser.add_argument(
        "--prompt", type=int, nargs="+", default=[64, 256, 640, 1300], help="P, tokens of a prompt"
    )
    parser.add_argument("--steps", type=many, default=20, help=f"from noise to data, more than {_FEW}")
    return run_benchmark(parser, measure_drawing, COLUMNS, title("Groups of images"), argv)


def many(text: str) -> int:
    """A number of steps that has a slope to `_FEW`."""
    if (value := int(text)) <= _FEW:
        raise argparse.ArgumentTypeError(
            f"{value} steps are too few to measure one: ask for more than {_FEW}"
        )
    return value


def measure_drawing(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every size."""
    latent = LatentConfig(channels=16, downsample=8, height=16, width=16)
    model = UnifiedConfig(sized_model(), latent, experts="dense")
    params = initialise(model, jax.random.key(0))
    sizes = itertools.product(options.group, options.prompt)
    return [measure(model, params, *size, options.steps, repeats=options.repeats) for size in sizes]


def measure(
    model: UnifiedConfig, params: Any, group: int, prompt: int, steps: int, *, repeats: int
) -> dict[str, Any]:
    """Times both ways in turn; one row by `COLUMNS`."""
    conditions = Conditions(text_prompt(prompt))
    works = {
        "few": once(model, params, conditions, group, _FEW),
        "many": once(model, params, conditions, group, steps),
        "again": every_step(model, params, conditions, group, steps),
    }
    turns = take_turns(works, repeats=repeats)
    many, again = (quartiles([turn[name] for turn in turns])[1] for name in ("many", "again"))
    step = quartiles([(turn["many"] - turn["few"]) / (steps - _FEW) for turn in turns])[1]
    ratio = quartiles([turn["again"] / turn["many"] for turn in turns])[1]
    return dict(zip(COLUMNS, (group, prompt, steps, 1e3 * many, 1e3 * step, 1e3 * again, ratio), strict=True))


def once(
    model: UnifiedConfig, params: Any, conditions: Conditions, group: int, steps: int
) -> Callable[[], Any]:
    """The package's rollout."""
    rollout = jax.jit(make_image_rollout(model, FlowSampler(steps=steps, kind="ode"), group_size=group))
    return lambda: rollout(params, conditions, jax.random.key(0))


def every_step(
    model: UnifiedConfig, params: Any, conditions: Conditions, group: int, steps: int
) -> Callable[[], Any]:
    """Euler's steps, one call each, with the prompt in every one."""

    @functools.partial(jax.jit, donate_argnums=1)
    def step(params, latents, time, next_time):
        field = make_field(model, params, conditions, UNGUIDED)
        return latents + (next_time - time) * field(latents, jnp.full((1, group), time))

    def run() -> jax.Array:
        times = timesteps(steps=steps, shift=1.0)
        shape = (1, group, model.latent.num_tokens, model.latent.features)
        # The noise that the rollout begins with.
        latents = jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), shape)
        for now, following in itertools.pairwise(times):
            latents = step(params, latents, now, following)
        return latents

    return run


if __name__ == "__main__":
    sys.exit(main())
