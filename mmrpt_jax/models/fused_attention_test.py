import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models import fused_attention
from mmrpt_jax.models.attention import attend
from mmrpt_jax.models.chunk_attention import KeyBlock
from mmrpt_jax.models.forward import forward
from mmrpt_jax.models.fused_attention import Sequences, attend_to_selves, cudnn, splash
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.tokens import RowShape
from mmrpt_jax.models.vlm_test import CONFIG, make_batch, random_parameters

B, G, T, N, K, H = 8, 2, 130, 4, 2, 16


@pytest.fixture(scope="module")
def sequences():
    """Two blocks of Splash's least size, with padding at the end and a hidden part in the middle."""
    rng = np.random.default_rng(0)
    shapes = (B, G, T, N, H), (B, K, G, T, H), (B, K, G, T, H)
    valid = np.arange(T) < rng.integers(40, T, (B, G, 1))
    valid[:, :, 10:20] = False
    return Sequences(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), valid)


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    """Kernels as they run without their devices: interpreted, and as JAX's own reference."""
    kernels = {
        "splash": functools.partial(splash, interpret=True),
        "cudnn": functools.partial(cudnn, implementation="xla"),
    }
    monkeypatch.setattr(fused_attention, "KERNELS", kernels)


@pytest.fixture(params=["splash", "cudnn"])
def kernel(request):
    return request.param


def blockwise(sequences, **options):
    order = np.broadcast_to(np.arange(T), sequences.valid.shape)
    block = KeyBlock(sequences.keys, sequences.values, order, sequences.valid)
    return attend(sequences.queries, order, [block], **options).values


def loss_of(run, valid):
    probe = np.random.default_rng(1).normal(size=(B, G, T, N, H)).astype(np.float32)
    # What padding sees is undefined.
    weights = jnp.where(valid[..., None, None], probe, 0.0)

    @jax.jit
    @jax.value_and_grad
    def loss(arrays):
        return jnp.sum(weights * run(Sequences(*arrays, valid)))

    return loss


def test_a_kernel_equals_attention_by_blocks(sequences, kernel):
    found = jax.jit(lambda s: attend_to_selves(s, kernel, scale=0.3))(sequences)
    expected = blockwise(sequences, scale=0.3)
    valid = sequences.valid
    np.testing.assert_allclose(found[valid], expected[valid], rtol=1e-5, atol=1e-5)
    assert np.isfinite(found).all()


def test_its_gradients_are_those_of_attention_by_blocks(sequences, kernel):
    *arrays, valid = sequences
    fused = loss_of(lambda s: attend_to_selves(s, kernel), valid)(arrays)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5),
        fused,
        loss_of(blockwise, valid)(arrays),
    )


def test_splash_caps_scores(sequences):
    found = jax.jit(lambda s: attend_to_selves(s, "splash", softcap=0.5))(sequences)
    expected = blockwise(sequences, softcap=0.5)
    np.testing.assert_allclose(found[sequences.valid], expected[sequences.valid], rtol=1e-5, atol=1e-5)


def test_tokens_of_a_row_see_their_prompt_and_their_branch():
    # A prompt of two tokens, two branches of two, and one that fills the block.
    expected = """
        x......
        xx.....
        xxx....
        xxxx...
        xx..x..
        xx..xx.
        xx....x
    """
    found = fused_attention.visible_in_row(RowShape(2, 2, 2), padding=1)
    assert ["".join(np.where(row, "x", ".")) for row in found] == expected.split()


@pytest.mark.parametrize("count, sizes", [(8, (4, 1, 2)), (8, (1, 2, 4)), (1, (2, 4, 1))])
def test_devices_share_prompts_and_heads(sequences, kernel, count, sizes):
    """Four parts do not divide two heads of keys, nor two parts one prompt: there every device has all of them."""
    *arrays, valid = jax.tree.map(lambda x: x[:count], sequences)
    probe = np.random.default_rng(1).normal(size=arrays[0].shape).astype(np.float32)

    def loss(arrays):
        seen = attend_to_selves(Sequences(*arrays, valid), kernel)
        return jnp.sum(jnp.where(valid[..., None, None], probe * seen, 0.0))

    run = jax.jit(jax.value_and_grad(loss))
    whole = run(arrays)
    with jax.set_mesh(make_mesh(*sizes)):
        assert "shard_map" in str(jax.make_jaxpr(loss)(arrays))
        parts = run(arrays)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-4), parts, whole)


def test_cudnn_refuses_a_soft_cap(sequences):
    with pytest.raises(ValueError, match="cuDNN has no soft cap"):
        attend_to_selves(sequences, "cudnn", softcap=5.0)


@pytest.mark.parametrize("remat", ["none", "keep_attention"])
def test_a_model_runs_through_the_kernel(kernel, remat, monkeypatch):
    """Scores and gradients are those of the model without it; branches too go through Splash."""
    params, batch = random_parameters(CONFIG), make_batch()
    ran, run = [], fused_attention.KERNELS[kernel]
    counted = lambda *args, **options: ran.append(options.get("row")) or run(*args, **options)  # noqa: E731
    monkeypatch.setattr(fused_attention, "KERNELS", {kernel: counted})

    def evaluate(attention):
        decoder = dataclasses.replace(CONFIG.decoder, attention=attention, remat=remat)
        config = dataclasses.replace(CONFIG, decoder=decoder)

        def loss(params):
            scores = forward(config, params, *batch)
            return jnp.sum(jnp.where(batch[2].valid, scores.logprobs, 0.0))

        return jax.jit(jax.value_and_grad(loss))(params)

    (loss, gradients), (plain, plain_gradients) = evaluate(kernel), evaluate("xla")
    assert ran and set(ran) == {RowShape(12, 3, 5) if kernel == "splash" else None}
    np.testing.assert_allclose(loss, plain, rtol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), gradients, plain_gradients
    )
