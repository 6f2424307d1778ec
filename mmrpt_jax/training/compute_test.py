import dataclasses

import jax
import numpy as np
import pytest

from mmrpt_jax.models import BranchTokens, PromptTokens, TransformerConfig, VisionConfig, VLMConfig
from mmrpt_jax.models.config import ConnectorConfig
from mmrpt_jax.models.initialise import abstract_parameters
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.training.compute import drawing_flops, forward_flops, update_flops

TINY = VLMConfig(
    vocab_size=7,
    decoder=TransformerConfig(width=4, layers=2, heads=2, kv_heads=1, head_dim=2, mlp=3),
    vision=VisionConfig(
        4, 4, 2, TransformerConfig(width=6, layers=1, heads=1, kv_heads=1, head_dim=4, mlp=5)
    ),
)
# Every product of [m, k] and [k, n] of one prompt of 8 tokens with 3 branches of 2 tokens, as (m, k, n).
IMAGE = [(4, 12, 6), *[(4, 6, 4)] * 3, (4, 4, 4), (4, 4, 4), (4, 4, 6), *[(4, 6, 5)] * 2, (4, 5, 6)]
CONNECTOR = [(4, 6, 4), (4, 4, 4)]


def layer(tokens, keys):
    heads = [(tokens, 2, keys), (tokens, keys, 2)] * 2
    projections = [(tokens, 4, 4), *[(tokens, 4, 2)] * 2, (tokens, 4, 4)]
    return [*heads, *projections, *[(tokens, 4, 3)] * 2, (tokens, 3, 4)]


# Causal or not, every product of a block is computed.
PROMPT, BRANCHES = layer(8, 8) * 2, layer(6, 8 + 2) * 2
HEAD = [(6, 4, 7)]


def test_flops_by_hand():
    products = IMAGE + CONNECTOR + PROMPT + BRANCHES + HEAD
    by_hand = 2 * sum(m * k * n for m, k, n in products)
    shape = {"prompt_tokens": 8, "group": 3, "branch_tokens": 2}
    assert forward_flops(TINY, prompts=1, **shape) == by_hand
    assert forward_flops(TINY, prompts=5, **shape) == 5 * by_hand
    assert update_flops(TINY, prompts=5, **shape) == 15 * by_hand


def test_flops_of_a_connector_that_merges():
    tower = dataclasses.replace(TINY.vision.transformer, gated=False)
    vision = dataclasses.replace(
        TINY.vision,
        transformer=tower,
        frames=2,
        connector=ConnectorConfig(2, hidden=5),
        deepstack_layers=(0,),
    )
    merged = dataclasses.replace(TINY, vision=vision)
    image = [(4, 24, 6), *[(4, 6, 4)] * 3, (4, 4, 4), (4, 4, 4), (4, 4, 6), (4, 6, 5), (4, 5, 6)]
    connector = [(1, 24, 5), (1, 5, 4)] * 2
    shape = {"prompts": 1, "prompt_tokens": 8, "group": 3, "branch_tokens": 2}
    products = image + connector + PROMPT + BRANCHES + HEAD
    assert forward_flops(merged, **shape) == 2 * sum(m * k * n for m, k, n in products)
    pooled = dataclasses.replace(
        vision, connector=ConnectorConfig(2, pool="mean", hidden=0), deepstack_layers=()
    )
    products = [*image, (1, 6, 4), *PROMPT, *BRANCHES, *HEAD]
    found = forward_flops(dataclasses.replace(TINY, vision=pooled), **shape)
    assert found == 2 * sum(m * k * n for m, k, n in products)


def test_flops_as_xla_counts_them(forward_of):
    # Wide enough for products to outweigh the norms, activations and softmaxes that we leave out and XLA counts; scans
    # are unrolled, because XLA counts a loop's body once.
    sizes = {"layers": 2, "unroll": 2, "heads": 4, "head_dim": 32, "mlp": 256}
    config = VLMConfig(
        vocab_size=512,
        decoder=TransformerConfig(width=128, kv_heads=2, **sizes),
        vision=VisionConfig(32, 32, 8, TransformerConfig(width=128, kv_heads=4, rope=None, **sizes)),
    )
    b, p, g, r = 4, 64, 4, 16
    ids, mask = (lambda *s: jax.ShapeDtypeStruct(s, np.int32)), (lambda *s: jax.ShapeDtypeStruct(s, bool))
    inputs = (
        abstract_parameters(config),
        jax.ShapeDtypeStruct((b, 1, 32, 32, 3), np.uint8),
        PromptTokens(ids(b, p), mask(b, p), mask(b, p)),
        BranchTokens(ids(b, g, r), mask(b, g, r)),
    )
    counted = forward_of(config).lower(*inputs).compile().cost_analysis()["flops"]
    ours = forward_flops(config, prompts=b, prompt_tokens=p, group=g, branch_tokens=r)
    assert ours == pytest.approx(counted, rel=0.1)


def test_flops_of_drawing_by_hand():
    # Four latent tokens of 2² · 3 numbers each, behind a prompt of five tokens.
    config = UnifiedConfig(TINY, LatentConfig(channels=3, downsample=1, height=4, width=4))
    latents = [(4, 12, 4), (4, 4, 12), *layer(4, 5 + 4) * 2]
    time = [(1, 256, 4), (1, 4, 4)]
    one = sum(m * k * n for m, k, n in latents + time)
    prompt = sum(m * k * n for m, k, n in layer(5, 5) * 2)
    found = drawing_flops(config, prompts=3, prompt_tokens=5, images=2, looks=7)
    assert found == 2 * 3 * (prompt + 2 * 7 * one)
