"""What a pod would need, compiled on a machine that has none: `python -m experiments.benchmarks.tpu_compile`.

Compiles the programs of a published model's preset for slices of TPUs, with abstract weights and batches: once with
prompts that are shared by their groups, and once with a copy for every answer. All figures are estimates of the
compiler (`mmrpt_jax.stages.topology.report` says how they are made): nothing runs. Needs the extra `tpu`, and no TPU.
"""

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.benchmarks.common.shapes import Shape, shaped_preset
from experiments.benchmarks.published_sizes import PUBLISHED
from mmrpt_jax.models import VLMConfig, abstract_parameters
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command
from mmrpt_jax.reporting.table import format_table, write_table
from mmrpt_jax.stages.lvrpo.programs import programs as lvrpo_programs
from mmrpt_jax.stages.mmrpt.programs import programs as mmrpt_programs
from mmrpt_jax.stages.topology.chips import CHIPS
from mmrpt_jax.stages.topology.exchanges import Exchange
from mmrpt_jax.stages.topology.report import COLUMNS, NOTES, exchanged_bytes, measure_programs
from mmrpt_jax.stages.topology.slices import open_slice
from mmrpt_jax.stages.trained import with_training

# 64 devices of each generation.
TOPOLOGIES = ("v5e:8x8", "v5p:4x4x4", "v6e:8x8", "tpu7x:4x4x2")
# The programs in which a prompt has a group.
_GROUPED = {"mmrpt": ("rollout", "update"), "lvrpo": ("answers", "drawings", "update")}
_ALONE = {"mmrpt": ("score",), "lvrpo": ()}
PROMPTS = ("shared", "copied")
_COLUMNS = ("slice", "prompts", *COLUMNS, "GB of activations")


def configured(
    model: str, shape: Shape, *, gather: bool = False, attention: str = "xla"
) -> tuple[ConfigDict, Callable[..., Any]]:
    """The preset of a published model with this shape, and what builds its programs from a mesh."""
    published = PUBLISHED[model]()
    unified = not isinstance(published, VLMConfig)
    config = shaped_preset(shape, unified=unified)
    config.train.update(gather_to_sample=gather, attention=attention)
    if unified:
        model_config = dataclasses.replace(published, vlm=with_training(published.vlm, config))
        return config, functools.partial(lvrpo_programs, config, model_config)
    config.score.batch_size = shape.prompts
    return config, functools.partial(mmrpt_programs, config, with_training(published, config))


def measure(
    model: str,
    topology: str,
    shape: Shape,
    programs: Sequence[str] = (),
    *,
    prompts: Sequence[str] = PROMPTS,
    gather: bool = False,
    attention: str = "xla",
) -> list[dict[str, Any]]:
    """Rows by `_COLUMNS`: every program with shared prompts, and, where prompts have groups, with copied ones.

    Args:
        model: a name of `PUBLISHED`.
        topology: the slice.
        shape: of the step with shared prompts.
        programs: those to compile; (): all.
        prompts: shared, copied or both.
        gather: whether rollouts fetch weights once, as with `config.train.gather_to_sample`.
        attention: what computes prompts, as `config.train.attention`.
    """
    found, rows = open_slice(topology), []
    for how in prompts:
        form = shape if how == "shared" else shape.copied()
        try:
            config, build = configured(model, form, gather=gather, attention=attention)
        except ValueError as error:
            raise UsageError(f"{model}: {error}") from None
        names = _GROUPED[config.method] + (_ALONE[config.method] if how == "shared" else ())
        mesh = make_mesh(**config.mesh.to_dict(), devices=found.devices)
        weights = weight_sizes(abstract_parameters(build.args[1], mesh))
        for name in [name for name in names if name in (programs or names)]:
            (row,) = measure_programs(build, found, config.mesh.to_dict(), [name])
            other = [exchange for exchange in row.pop("exchanges") if not _is_of(weights, exchange)]
            row["GB of activations"] = exchanged_bytes(other) / 1e9
            row["largest of activations"] = max(other, key=lambda e: e.size)._asdict() if other else None
            rows.append({"slice": topology, "prompts": how} | row)
            print(f"{topology} {name}, {how}: {row['ms']:.0f} ms", file=sys.stderr)
    return rows


def weight_sizes(params: Any) -> frozenset[int]:
    """Numbers in weights, whole and in shards, of all layers and of one."""
    shapes = [(leaf.shape, leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(params)]
    return frozenset(math.prod(part) for pair in shapes for shape in pair for part in (shape, shape[1:]))


def _is_of(weights: frozenset[int], exchange: Exchange) -> bool:
    """Whether a collective moves weights or their gradients, told by their sizes: reshaped, they are as large."""
    return all(math.prod(shape) in weights for shape in exchange.shapes)


def compare(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each slice and program: what a shared prompt needs, as parts of what copies need.

    Copies in one batch may be bound by their traffic, which smaller batches would save: the last part is that of the
    time that their products alone take.
    """
    copied = {(row["slice"], row["program"]): row for row in rows if row["prompts"] == "copied"}
    lines = []
    for row in rows:
        other = copied.get((row["slice"], row["program"]))
        if row["prompts"] == "shared" and other is not None:
            parts = ", ".join(
                f"{row[key] / other[key]:.2f} {key}" for key in ("ms", "TFLOP", "GB moved", "GiB peak")
            )
            chip = CHIPS[row["slice"].partition(":")[0]]
            alone = row["ms"] / (1e15 * other["TFLOP"] / chip.flops)
            lines.append(
                f"{row['slice']} {row['program']}, shared / copied: {parts}, {alone:.2f} ms of products alone"
            )
    return lines


def run(options: argparse.Namespace) -> str:
    """Compiles what is asked for; returns the tables.

    Raises:
        ConfigError: an unknown slice, or no compiler.
    """
    shape = Shape(options.batch, options.group, options.prompt, options.answer, options.patches)
    rows = []
    for topology in options.topologies:
        rows += measure(
            options.model,
            topology,
            shape,
            options.programs,
            prompts=options.prompts,
            gather=options.gather,
            attention=options.attention,
        )
    title = f"{options.model}, compiler's estimates, {shape}"
    if options.out:
        write_table(options.out, rows, _COLUMNS, title=title)
    return "\n".join([title, "", format_table(rows, _COLUMNS, markdown=True), "", *NOTES, "", *compare(rows)])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.benchmarks.tpu_compile", description=__doc__)
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), help="slices (%(default)s)")
    parser.add_argument("--model", default="qwen2_5_vl_7b", choices=PUBLISHED)
    parser.add_argument("--programs", nargs="+", default=(), help="some of them (all)")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, choices=PROMPTS, help="(%(default)s)")
    parser.add_argument(
        "--attention", default="xla", choices=("xla", "splash"), help="what computes attention (%(default)s)"
    )
    parser.add_argument("--gather", action="store_true", help="fetch weights once per rollout, not per token")
    parser.add_argument("--batch", type=int, default=64, help="prompts of a step (%(default)s)")
    parser.add_argument("--group", type=int, default=8, help="answers per prompt (%(default)s)")
    parser.add_argument("--prompt", type=int, default=1300, help="tokens of a prompt (%(default)s)")
    parser.add_argument("--answer", type=int, default=200, help="tokens of an answer (%(default)s)")
    parser.add_argument("--patches", type=int, default=4096, help="patches of a prompt's image (%(default)s)")
    parser.add_argument("--out", type=Path, help="stem of <out>.json and <out>.txt")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: run(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
