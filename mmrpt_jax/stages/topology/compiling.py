"""Compiles programs for a slice, each in a process of its own, until it is known what they need.

What is asked for (memory, collectives, traffic) is known once XLA has optimised a program and placed its arrays. To
turn that into machine code takes many times as long and tells nothing more, so the compiler is ended there: it writes
down what it has, and it is this that is read.
"""

import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.topology.exchanges import Exchange, exchanges
from mmrpt_jax.stages.topology.flops import count_flops
from mmrpt_jax.stages.topology.hlo import read_module
from mmrpt_jax.stages.topology.program import Program
from mmrpt_jax.stages.topology.slices import open_slice
from mmrpt_jax.stages.topology.traffic import traffic

# mesh -> the programs of an experiment, by name; it is sent to other processes.
Build = Callable[[Mesh], Mapping[str, Program]]
_POLL_SECONDS = 0.5
# What is written last; it is not read, so that it need not be whole.
_LAST = "*after_optimizations_after_buffer_assignment.txt"
# Memory of a color is not the main one.
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (?!color)(.*)$", re.MULTILINE)
_TOO_LARGE = "RESOURCE_EXHAUSTED"


class Needs(NamedTuple):
    """What a program needs of one device, by the compiler's word.

    Attributes:
        fits: whether the device's memory holds it.
        peak: bytes of all arrays at once; machine code, some tens of MB of a large program, is not among them.
        arguments: bytes of what it is given.
        temporaries: bytes of what it makes on the way.
        flops: as it is run, recomputation included.
        traffic: bytes to and from memory.
        exchanges: collectives.
    """

    fits: bool
    peak: int
    arguments: int
    temporaries: int
    flops: float
    traffic: int
    exchanges: list[Exchange]


def needs_of(build: Build, name: str, topology: str, sizes: Mapping[str, int], trips: int = 1) -> Needs:
    """Compiles one program.

    Args:
        build: makes the programs.
        name: of the one.
        topology: as `open_slice` takes it.
        sizes: of the mesh, as `make_mesh` takes them.
        trips: `Program.trips`.

    Raises:
        ConfigError: it does not compile, for another reason than its size.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_compile, args=(build, name, topology, dict(sizes), folder))
        process.start()
        while process.is_alive() and not any(Path(folder).glob(_LAST)):
            time.sleep(_POLL_SECONDS)
        process.kill()
        process.join()
        return _read(Path(folder), name, trips)


def _compile(build: Build, name: str, topology: str, sizes: dict[str, int], folder: str) -> None:
    """In the other process: compiles, and writes what only a traced program tells, or why it does not compile."""
    # The compiler for TPUs ends at a flag that only other compilers know.
    os.environ.pop("XLA_FLAGS", None)
    mesh = make_mesh(**sizes, devices=open_slice(topology).devices)
    program = build(mesh)[name]
    with jax.set_mesh(mesh):
        traced = jax.jit(program.run, donate_argnums=program.donated).trace(*program.arguments)
        flops = count_flops(traced.jaxpr.jaxpr, trips=program.trips) / mesh.size
        Path(folder, "flops.json").write_text(json.dumps(flops))
        try:
            traced.lower().compile({"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        except jax.errors.JaxRuntimeError as error:
            Path(folder, "error.txt").write_text(str(error))


def _read(folder: Path, name: str, trips: int) -> Needs:
    error = _text(folder, "error.txt", default="")
    if error and not error.startswith(_TOO_LARGE):
        raise ConfigError(f"the program {name!r} does not compile: {error.splitlines()[0]}")
    module, entry = read_module(_text(folder, "*after_optimizations.txt"))
    held = _ALLOCATION.findall(_text(folder, "*-buffer-assignment.txt"))
    sizes = [(int(size), kind) for size, kind in held if "thread-local" not in kind]
    return Needs(
        fits=not error,
        peak=sum(size for size, _ in sizes),
        arguments=sum(size for size, kind in sizes if "parameter" in kind),
        temporaries=sum(size for size, kind in sizes if "preallocated-temp" in kind),
        flops=json.loads(_text(folder, "flops.json")),
        traffic=traffic(module, entry, trips=trips),
        exchanges=exchanges(module, entry, trips=trips),
    )


def _text(folder: Path, pattern: str, default: str | None = None) -> str:
    """Of the one file of that name.

    Raises:
        ConfigError: there is none, and no default: the other process ended before it, and has told why.
    """
    paths = list(folder.glob(pattern))
    if not paths and default is None:
        raise ConfigError("the compiler ended before it was done: what it said stands above")
    return paths[0].read_text() if paths else default
