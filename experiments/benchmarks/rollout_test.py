"""What the benchmarks of sampling count, and that they compare like with like."""

import dataclasses

import jax
import numpy as np

from experiments.benchmarks.common.sizes import text_prompt
from experiments.benchmarks.image_rollout import every_step, once
from experiments.benchmarks.rollout import bytes_to_read
from mmrpt_jax.models import LatentConfig, UnifiedConfig, initialise
from mmrpt_jax.sampling import Conditions


def test_bytes_by_hand(tiny_model):
    params = {"decoder": {"a": np.zeros((3, 5)), "b": np.zeros(7)}, "vision": {"c": np.zeros(1000)}}
    # Width 16, two layers, one head with keys of eight numbers: 32 numbers of keys and values per position.
    weights = 15 + 7 + tiny_model.vocab_size * 16
    # Three steps read the weights and ten prompt positions; of two branches, 0, 1 and 2 positions.
    expected = 4 * (3 * (weights + 10 * 32) + 2 * (0 + 1 + 2) * 32)
    assert bytes_to_read(tiny_model, params, group=2, prompt=10, answer=3) == expected
    half = dataclasses.replace(tiny_model, param_dtype="bfloat16", compute_dtype="bfloat16")
    assert bytes_to_read(half, params, group=2, prompt=10, answer=3) == expected // 2


def test_both_ways_draw_the_same(tiny_model):
    shared = dataclasses.replace(tiny_model, decoder=dataclasses.replace(tiny_model.decoder, layers=1))
    model = UnifiedConfig(shared, LatentConfig(channels=2, downsample=8, height=4, width=4), experts="dense")
    params, conditions = initialise(model, jax.random.key(0)), Conditions(text_prompt(6))
    ours, plain = once(model, params, conditions, 2, 3), every_step(model, params, conditions, 2, 3)
    np.testing.assert_allclose(ours().latents, plain(), rtol=1e-4, atol=1e-5)
