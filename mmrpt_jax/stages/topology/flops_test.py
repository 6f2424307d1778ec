import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.stages.topology.flops import count_flops

A, B = jnp.zeros((3, 5)), jnp.zeros((5, 7))
ONCE = 2 * 3 * 5 * 7


def flops_of(function, *arguments, **options):
    return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr, **options)


def looped(a, b):
    return jax.lax.scan(lambda carry, _: (carry + (a @ b).sum(), None), 0.0, None, length=4)[0]


def while_positive(a, b):
    return jax.lax.while_loop(lambda x: x > 0, lambda x: (a @ b).sum() + x, 1.0)


def branched(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: (a @ b).sum(), lambda: (a @ b).sum() + (a @ b @ b.T).sum())


@pytest.mark.parametrize(
    "function, expected",
    [
        (jnp.matmul, ONCE),
        (jax.jit(jnp.matmul), ONCE),
        (looped, 4 * ONCE),
        (while_positive, 6 * ONCE),
        # The branch that computes more.
        (branched, 2 * ONCE + 2 * 3 * 7 * 5),
    ],
)
def test_products(function, expected):
    assert flops_of(function, A, B, trips=6) == expected


def test_a_kernel_counts_for_every_cell_of_its_grid():
    def body(a, b, out):
        out[...] = a[...] @ b[...]

    out = jax.ShapeDtypeStruct((3, 7), A.dtype)
    kernel = pl.pallas_call(body, out_shape=out, grid=(2, 4), interpret=True)
    assert flops_of(kernel, A, B) == 8 * ONCE


def test_a_device_s_part_counts_for_all_devices():
    mesh = make_mesh(2, 2, 2)
    part = jax.shard_map(
        jnp.matmul, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec()), out_specs=PartitionSpec()
    )
    assert flops_of(part, A, B) == 8 * ONCE


def test_what_is_recomputed_counts_again():
    def loss(a):
        return jnp.sum(jax.checkpoint(lambda a: jnp.sin(jnp.sin(a @ B) @ B.T))(a))

    # Two products forward, both of them anew, and one backward for each.
    assert flops_of(jax.grad(loss), A) == (2 + 2 + 2) * ONCE


def test_products_of_batches():
    assert flops_of(
        lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.zeros((2, 3, 5)), jnp.zeros((2, 5, 7))
    ) == (2 * ONCE)


def test_convolutions():
    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID")

    # 4 output channels of 6 x 6 pixels, each of 2 channels of 3 x 3 pixels.
    assert flops_of(convolve, jnp.zeros((1, 2, 8, 8)), jnp.zeros((4, 2, 3, 3))) == 2 * 4 * 36 * 2 * 9
