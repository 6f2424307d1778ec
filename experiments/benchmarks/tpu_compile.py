"""What a pod would need, compiled on a machine that has none: `python -m experiments.benchmarks.tpu_compile`.

Compiles rollout, dependency scoring and policy update for TPU slices, with abstract weights and batches, once with
prompts shared by their groups and once with a copy for every answer. All figures are the compiler's: nothing runs.
Needs `pip install libtpu`; no TPU.
"""

import argparse
import dataclasses
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Before jax: there is no TPU whose name and neighbours could be asked for.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "JAX_PLATFORMS": "cpu",
}

import jax
import jax.numpy as jnp
import optax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.benchmarks.published_sizes import NAMES, published_model
from mmrpt_jax.models import BranchTokens, ImagePatches, PromptTokens, VLMConfig, abstract_parameters
from mmrpt_jax.models.sharding import MESH_AXES, batch_sharding
from mmrpt_jax.objectives import VARIANTS
from mmrpt_jax.reporting.command_line import Parser, UsageError, run_command
from mmrpt_jax.reporting.table import format_table, write_table
from mmrpt_jax.sampling.rollout import make_rollout
from mmrpt_jax.training.compute import forward_flops, update_flops
from mmrpt_jax.training.policy import PolicyBatch, make_policy_step
from mmrpt_jax.training.scoring import make_dependency_scorer, select_layers
from mmrpt_jax.training.state import TrainState, init_of, make_optimizer

# Per device as JAX counts them: peak of bfloat16 products in FLOP/s, and memory in bytes, of Google's public tables.
CHIPS: Mapping[str, tuple[float, float]] = {
    "v4": (275e12, 32e9),
    "v5e": (197e12, 16e9),
    "v5p": (459e12, 95e9),
    "v6e": (918e12, 32e9),
    "tpu7x": (1153.5e12, 96e9),
}
_COLLECTIVE = re.compile(r"= \S+ (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
COLUMNS = (
    "program", "prompts", "GiB", "of chip", "TFLOP", "GB moved", "ms, XLA", "MFU", "collectives", "compiled in"
)  # fmt: skip


class Shape(NamedTuple):
    """Sizes of a step: B groups of G branches of R tokens behind P tokens, among them those of `patches` patches."""

    prompts: int
    group: int
    prompt_tokens: int
    branch_tokens: int
    patches: int

    def copied(self) -> "Shape":
        """The same answers, each behind a prompt of its own."""
        return self._replace(prompts=self.prompts * self.group, group=1)


class Program(NamedTuple):
    """Something to compile: a function, its abstract arguments, which of them it writes over, and its FLOPs."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    donated: tuple[int, ...]
    flops: float


def open_mesh(topology: str) -> Mesh:
    """A mesh of a slice such as "v5p:4x4x4", all of it in `fsdp`.

    Raises:
        UsageError: the compiler knows no such slice.
    """
    try:
        devices = get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # whatever the plugin raises
        raise UsageError(f"--topology {topology}: {str(error).splitlines()[0]}") from error
    return jax.make_mesh((1, len(devices), 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def programs(model: VLMConfig, mesh: Mesh, shape: Shape, *, micro_batches: int) -> dict[str, Program]:
    """Rollout, score and update of one step."""
    params = abstract_parameters(model, mesh)
    images, prompt, branches = _inputs(model, mesh, shape)
    sizes = shape._asdict()
    banned = jnp.zeros(model.vocab_size, bool)
    rollout = make_rollout(
        model, group_size=shape.group, max_tokens=shape.branch_tokens, end_ids=(0,), banned=banned
    )
    key = _array(mesh, (), jax.random.key(0).dtype, whole=True)
    scorer = make_dependency_scorer(model, layers=select_layers(model.decoder.layers, (0.5, 1.0)))
    optimizer = make_optimizer(learning_rate=1e-6, steps=1000)
    update = make_policy_step(
        model,
        optimizer,
        temperature=1.0,
        banned=banned,
        micro_batches=micro_batches,
        variant=VARIANTS["dapo"],
    )
    state, batch = _state(params, optimizer, mesh), _policy_batch(mesh, shape, images, prompt, branches)
    once = forward_flops(model, **sizes)
    return {
        "rollout": Program(rollout, (params, images, prompt, key), (), once),
        "score": Program(scorer, (params, images, prompt, branches), (), 3 * once),
        "update": Program(update, (state, batch), (0,), update_flops(model, **sizes)),
    }


def _inputs(model: VLMConfig, mesh: Mesh, shape: Shape) -> tuple[ImagePatches, PromptTokens, BranchTokens]:
    prompts, patches = (shape.prompts, shape.prompt_tokens), (shape.prompts, shape.patches)
    branches = (shape.prompts, shape.group, shape.branch_tokens)
    images = ImagePatches(
        _array(mesh, (*patches, model.vision.patch_pixels), jnp.uint8),
        *[_array(mesh, patches, jnp.int32) for _ in range(3)],
    )
    prompt = PromptTokens(_array(mesh, prompts, jnp.int32), *[_array(mesh, prompts, bool) for _ in range(2)])
    return images, prompt, BranchTokens(_array(mesh, branches, jnp.int32), _array(mesh, branches, bool))


def _state(params: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Moments live where their parameters live, as `new_state` places them."""
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda leaf, parameter: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=parameter.sharding),
        jax.eval_shape(init_of(optimizer), params),
        params,
        transform_non_params=lambda leaf: _array(mesh, leaf.shape, leaf.dtype, whole=True),
    )
    return TrainState(_array(mesh, (), jnp.int32, whole=True), params, moments)


def _policy_batch(mesh: Mesh, shape: Shape, *inputs: Any) -> PolicyBatch:
    group, branches = (shape.prompts, shape.group), (shape.prompts, shape.group, shape.branch_tokens)
    behaviour, advantages = _array(mesh, branches, jnp.float32), _array(mesh, group, jnp.float32)
    return PolicyBatch(*inputs, behaviour, advantages, _array(mesh, group, bool), None)


def _array(mesh: Mesh, shape: tuple[int, ...], dtype: Any, *, whole: bool = False) -> jax.ShapeDtypeStruct:
    sharding = NamedSharding(mesh, PartitionSpec()) if whole else batch_sharding(mesh)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def measure(name: str, program: Program, mesh: Mesh, kind: str) -> dict[str, Any]:
    """Compiles a program and reads what the compiler says of one device; a row by `COLUMNS`, but `prompts`."""
    begin = time.monotonic()
    compiled = jax.jit(program.run, donate_argnums=program.donated).lower(*program.arguments).compile()
    seconds = time.monotonic() - begin
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    held -= memory.alias_size_in_bytes
    rate, capacity = CHIPS[kind]
    estimate = costs.get("optimal_seconds", float("nan"))
    found = Counter(_COLLECTIVE.findall(compiled.as_text()))
    return {
        "program": name,
        "GiB": held / 2**30,
        "of chip": held / capacity,
        "TFLOP": costs["flops"] / 1e12,
        "GB moved": costs["bytes accessed"] / 1e9,
        "ms, XLA": 1e3 * estimate,
        # Of the model's own FLOPs, however many the compiler recomputes.
        "MFU": program.flops / mesh.size / (rate * estimate),
        "collectives": ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())) or "none",
        "compiled in": f"{seconds:.0f} s",
    }


def compile_all(options: argparse.Namespace) -> str:
    """Compiles what is asked for; returns the table.

    Raises:
        UsageError: an unknown slice or generation, or prompts that do not divide over the devices.
    """
    kind = options.topology.partition(":")[0]
    if kind not in CHIPS:
        raise UsageError(f"--topology {options.topology}: the generation is one of {', '.join(CHIPS)}")
    mesh, model = open_mesh(options.topology), published_model(options.model)
    if options.batch % mesh.size:
        raise UsageError(f"--batch {options.batch} does not divide over the {mesh.size} devices of the slice")
    model = dataclasses.replace(
        model,
        decoder=dataclasses.replace(model.decoder, remat=True),
        vision=dataclasses.replace(
            model.vision, transformer=dataclasses.replace(model.vision.transformer, remat=True)
        ),
        param_dtype=options.param_dtype,
        compute_dtype="bfloat16",
    )
    shared = Shape(options.batch, options.group, options.prompt, options.answer, options.patches)
    rows = []
    for prompts, shape in (("shared", shared), ("copied", shared.copied())):
        for name, program in programs(model, mesh, shape, micro_batches=options.micro_batches).items():
            if name in options.programs:
                rows.append({"prompts": prompts} | measure(name, program, mesh, kind))
                print(f"{rows[-1]['program']}, {prompts}: {rows[-1]['compiled in']}", file=sys.stderr)
    title = f"{options.model} on {options.topology}, {mesh.size} devices, compiler's estimates, {shared}"
    if options.out:
        write_table(options.out, rows, COLUMNS, title=title)
    return f"{title}\n{format_table(rows, COLUMNS)}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.benchmarks.tpu_compile", description=__doc__)
    parser.add_argument("--topology", default="v5p:4x4x4", help="a slice (%(default)s)")
    parser.add_argument("--model", default="qwen2_5_vl_7b", choices=NAMES)
    parser.add_argument("--programs", nargs="+", default=["rollout", "score", "update"])
    parser.add_argument("--batch", type=int, default=64, help="prompts of a step (%(default)s)")
    parser.add_argument("--group", type=int, default=8, help="answers per prompt (%(default)s)")
    parser.add_argument("--prompt", type=int, default=1300, help="tokens of a prompt (%(default)s)")
    parser.add_argument("--answer", type=int, default=200, help="tokens of an answer (%(default)s)")
    parser.add_argument("--patches", type=int, default=4096, help="patches of a prompt's images (%(default)s)")
    parser.add_argument("--micro_batches", type=int, default=1)
    parser.add_argument("--param_dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, help="stem of <out>.json and <out>.txt")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, or 2 with one sentence on stderr."""
    return run_command(lambda: compile_all(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
