import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmrpt_jax.models.initialise import abstract_parameters, count_parameters, initialise
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified import encode_prompt, velocity
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.models.vlm import VLM
from mmrpt_jax.models.vlm_test import CONFIG, VARIANT, make_batch

UNIFIED = UnifiedConfig(CONFIG, LatentConfig(channels=2, downsample=4, height=4, width=4))


@pytest.fixture(scope="module")
def params():
    return initialise(CONFIG, jax.random.key(0))


def test_parameters_are_a_function_of_the_key(params):
    other = initialise(CONFIG, jax.random.key(1))
    assert np.abs(other["embedding"] - params["embedding"]).max() > 0.1
    assert np.abs(other["vision"]["positions"] - params["vision"]["positions"]).max() > 0.01
    jax.tree.map(np.testing.assert_array_equal, initialise(CONFIG, jax.random.key(0)), params)


def test_parameters_are_born_in_their_shards(params):
    mesh = make_mesh(2, 2, 2)
    sharded = initialise(CONFIG, jax.random.key(0), mesh)
    assert sharded["embedding"].sharding.spec == PartitionSpec("tensor", "fsdp")
    asked = jax.tree.map(lambda leaf: leaf.sharding, abstract_parameters(CONFIG, mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, sharded) == asked
    # With the values that they have without a mesh.
    jax.tree.map(np.testing.assert_array_equal, sharded, params)


def test_embeddings_have_unit_variance(params):
    embedded = VLM(CONFIG).apply({"params": params}, jnp.arange(CONFIG.vocab_size), method=VLM.embed)
    assert float(jnp.std(embedded)) == pytest.approx(1.0, abs=0.05)


def test_parameters_are_plain_dicts_of_arrays(params):
    assert type(params) is dict
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))


def test_abstract_parameters_describe_them(params):
    describe = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert describe(abstract_parameters(CONFIG)) == describe(params)


def stack_size(cfg):
    """Parameters of a stack, counted by hand."""
    kv = cfg.kv_heads * cfg.head_dim
    q = cfg.heads * cfg.head_dim
    layer = cfg.width * (2 * q + 2 * kv) + 3 * cfg.width * cfg.mlp + 2 * cfg.width
    layer += (q + 2 * kv if cfg.qkv_bias else 0) + (2 * cfg.head_dim if cfg.qk_norm else 0)
    return cfg.layers * layer + cfg.width


@pytest.mark.parametrize("config", [CONFIG, VARIANT], ids=["plain", "options"])
def test_count(config):
    width, tower = config.decoder.width, config.vision.transformer.width
    pixels = config.vision.patch_size**2 * 3
    vision = (
        pixels * tower + tower + config.vision.num_patches * tower + stack_size(config.vision.transformer)
    )
    connector = tower * width + width + width * width + width
    expected = config.vocab_size * width + stack_size(config.decoder) + vision + connector
    assert count_parameters(abstract_parameters(config)) == expected


def test_layers_differ(params):
    kernels = params["decoder"]["layers"]["query"]["kernel"]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1


@pytest.fixture(scope="module")
def unified():
    return initialise(UNIFIED, jax.random.key(0), make_mesh(2, 2, 2))


def test_a_unified_model_begins_as_its_vlm_and_copies(unified, params):
    understanding = {name: part for name, part in unified.items() if name not in ("generation", "latents")}
    jax.tree.map(np.testing.assert_array_equal, understanding, params)
    jax.tree.map(np.testing.assert_array_equal, unified["generation"], params["decoder"])


def test_experts_are_sharded_like_their_originals(unified):
    where = lambda tree: jax.tree.map(lambda leaf: leaf.sharding.spec, tree)  # noqa: E731
    assert where(unified["generation"]) == where(unified["decoder"])
    assert unified["latents"]["inward"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp")
    assert where(unified) == where(abstract_parameters(UNIFIED, make_mesh(2, 2, 2)))


def test_a_fresh_model_has_no_flow(unified):
    images, prompt, _ = make_batch()
    latents = np.random.default_rng(0).normal(size=(2, 3, 4, 8)).astype(np.float32)

    @jax.jit
    def flow(params):
        state = encode_prompt(UNIFIED, params, images, prompt)
        return velocity(UNIFIED, params, state, latents, np.full((2, 3), 0.5))

    np.testing.assert_array_equal(flow(unified), 0.0)


@pytest.mark.parametrize("experts", ["dense", "moe", "mot"])
def test_count_of_a_unified_model(experts):
    width, features = CONFIG.decoder.width, UNIFIED.latent.features
    own = {"dense": 0, "moe": 2 * 3 * width * CONFIG.decoder.mlp, "mot": stack_size(CONFIG.decoder)}[experts]
    ways = (
        256 * width + width + width * width + width + features * width + width + width * features + features
    )
    found = count_parameters(abstract_parameters(dataclasses.replace(UNIFIED, experts=experts)))
    assert found == count_parameters(abstract_parameters(CONFIG)) + own + ways


def test_other_configs_are_refused():
    with pytest.raises(TypeError, match="there are no parameters for a LatentConfig"):
        abstract_parameters(UNIFIED.latent)
