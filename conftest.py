"""Tests see eight virtual CPU devices, so that sharded code runs as it would on a pod; and what many tests share."""

import functools
import gc
import os

# What tests run takes milliseconds; what counts is the time to compile it, and XLA's newer code generator is slow.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

import jax
import numpy as np
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
# Tracing makes millions of objects, few of them garbage.
gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Workers keep to their part of the files, so that what a file's tests share is made once, and help others out."""
    if config.getoption("numprocesses", None) and config.getoption("dist") == "no":
        config.option.dist = "worksteal"


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Words of the scenes' language in few merges."""
    from mmrpt_jax.data.prompts import caption_prompt, fill_prompt
    from mmrpt_jax.data.tokenizer import train_tokenizer

    captions = ("a red circle is above the blue square .", "there are two green triangles .")
    return train_tokenizer([caption_prompt(), fill_prompt(""), *captions * 4], vocab_size=320)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer):
    """Two layers of width 16 that look at four patches of 16x16 pixels."""
    from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig

    sizes = {"width": 16, "layers": 2, "heads": 2, "head_dim": 8, "mlp": 24}
    return VLMConfig(
        vocab_size=tiny_tokenizer.vocab_size,
        decoder=TransformerConfig(kv_heads=1, qk_norm=True, **sizes),
        vision=VisionConfig(16, 16, 8, TransformerConfig(kv_heads=2, rope_theta=0.0, **sizes)),
    )


@pytest.fixture(scope="session")
def tiny_params(tiny_model):
    from mmrpt_jax.models import initialise

    return initialise(tiny_model, jax.random.key(0))


@pytest.fixture(scope="session")
def forward_of():
    """config -> the compiled forward pass of that model."""
    from mmrpt_jax.models.forward import forward

    return functools.cache(lambda config: jax.jit(functools.partial(forward, config)))


@pytest.fixture(scope="session")
def tiny_forward(forward_of, tiny_model):
    return forward_of(tiny_model)


@pytest.fixture(scope="session")
def tiny_images():
    """Noise for eight prompts, `[8, 1, 16, 16, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16, 3), np.uint8)
