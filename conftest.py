"""Tests see eight virtual CPU devices, so that sharded code runs as it would on a pod; and what many tests share."""

import functools
import gc
import importlib.metadata
import os

# What tests run takes milliseconds; what counts is the time to compile it. XLA's newer code generator is slow, and so
# is cutting programs up to generate their code in parallel, where workers keep the cores busy anyway.
# Later versions have no other generator, and a flag that is not known ends the process.
if importlib.metadata.version("jax").startswith("0.10."):
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}"

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
    """Workers take whole files, in order: what a file's tests share is made once, and the longest come first."""
    if config.getoption("numprocesses", None) and config.getoption("dist") == "no":
        config.option.dist, config.option.loadscopereorder = "loadfile", False


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Words of the scenes' language in few merges."""
    from mmrpt_jax.data.prompts import Wording
    from mmrpt_jax.data.tokenizer import train_tokenizer

    captions = ("a red circle is above the blue square .", "there are two green triangles .")
    return train_tokenizer([Wording().caption, Wording().fill_prompt(""), *captions * 4], vocab_size=320)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer):
    """Two layers of width 16 that look at four patches of 16x16 pixels."""
    from mmrpt_jax.models import TransformerConfig, VisionConfig, VLMConfig

    sizes = {"width": 16, "layers": 2, "heads": 2, "head_dim": 8, "mlp": 24}
    return VLMConfig(
        vocab_size=tiny_tokenizer.vocab_size,
        decoder=TransformerConfig(kv_heads=1, qk_norm=True, **sizes),
        vision=VisionConfig(16, 16, 8, TransformerConfig(kv_heads=2, rope=None, **sizes)),
    )


@pytest.fixture(scope="session")
def tiny_processor(tiny_tokenizer):
    """What the tiny model reads."""
    from mmrpt_jax.data.processor import FixedSizeProcessor

    return FixedSizeProcessor(tiny_tokenizer, 16, 16, 8, lengths=(16, 24, 48))


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
def write_tokenizer():
    """Writes a byte-level BPE tokenizer that `AutoTokenizer` loads, and a config that goes with it, to a folder.

    Special tokens have the first ids.
    """
    import json

    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    def write(folder, *, special, chat_template=None, eos, pad=None, vocab_size=400, **config):
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(["what is\n\nin the image\n\n", "the red circle"] * 9, trainer)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, additional_special_tokens=list(special), eos_token=eos, pad_token=pad
        )
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(folder)
        text_config = {"vocab_size": vocab_size, "eos_token_id": None} | config.pop("text_config", {})
        content = {"model_type": "qwen2_5_vl", "text_config": text_config} | config
        (folder / "config.json").write_text(json.dumps(content))
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_images():
    """Noise for eight prompts, `[8, 1, 16, 16, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (8, 1, 16, 16, 3), np.uint8)
