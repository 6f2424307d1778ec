"""Programs of this file compile in a second; they need the extra `tpu`, and no TPU."""

import functools
import json
import multiprocessing
import os

import jax
import jax.numpy as jnp
import pytest

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.topology.compiling import needs_of
from mmrpt_jax.stages.topology.program import Program, split_batch, whole
from mmrpt_jax.stages.topology.slices import open_slice

pytest.importorskip("libtpu")
SIZES = {"data": -1, "fsdp": 1, "tensor": 1}


def build(mesh, rows=512):
    """Seven layers of one matrix, 256 x 256, and the gradient of their sum."""

    def total(weight, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ weight), None), x, None, length=7)[0].sum()

    weight = whole(mesh, (256, 256), jnp.float32)
    x = split_batch(mesh, jax.ShapeDtypeStruct((rows, 256), jnp.float32))
    return {"gradient": Program(jax.grad(total), (weight, x), 0.0), "wrong": Program(total, (x, x), 0.0)}


@pytest.fixture(scope="module")
def needs():
    return needs_of(build, "gradient", "v5e:2x2", SIZES)


def finish(path):
    """In a process of its own: compiles to the end, and writes what the finished program says of its memory."""
    os.environ.pop("XLA_FLAGS", None)
    program = build(make_mesh(**SIZES, devices=open_slice("v5e:2x2").devices))["gradient"]
    memory = jax.jit(program.run).lower(*program.arguments).compile().memory_analysis()
    path.write_text(json.dumps([memory.argument_size_in_bytes, memory.temp_size_in_bytes]))


def test_memory_is_what_the_finished_program_says(needs, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=finish, args=(tmp_path / "memory",))
    process.start()
    process.join()
    arguments, temporaries = json.loads((tmp_path / "memory").read_text())
    assert needs.arguments == arguments == 256 * 256 * 4 + 128 * 256 * 4
    assert needs.temporaries == pytest.approx(temporaries, abs=2**17)
    assert needs.fits


def test_flops_and_collectives(needs):
    # Forward, and for both gradients, of a device's 128 rows: but for the gradient of the rows themselves.
    assert needs.flops == pytest.approx(2 * 128 * 256 * 256 * (7 + 7 + 7), rel=0.05)
    (found,) = needs.exchanges
    assert (found.kind, found.shapes, found.times) == ("all-reduce", ((256, 256),), 1)


def test_a_program_that_is_too_large_is_measured_all_the_same():
    # Of a device 2^33 bytes of rows, and what its layers make of them, in memory of 2^34 bytes.
    needs = needs_of(functools.partial(build, rows=2**25), "gradient", "v5e:2x2", SIZES)
    assert not needs.fits
    assert needs.arguments == 2**33 + 2**18
    assert needs.peak > 2**34


def test_a_program_that_does_not_trace():
    with pytest.raises(ConfigError, match="ended before it was done"):
        needs_of(build, "wrong", "v5e:2x2", SIZES)


@pytest.mark.parametrize("topology", ["v5p:2x2x2", "v6e:2x4", "tpu7x:2x2x1"])
def test_the_other_generations(topology):
    needs = needs_of(build, "gradient", topology, SIZES)
    # Of 512 rows on 8 devices, and the weight.
    assert needs.arguments == 64 * 256 * 4 + 256 * 256 * 4
    assert needs.fits
