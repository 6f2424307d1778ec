import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file

from mmrpt_jax.models.initialise import abstract_parameters
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified_config import AutoencoderConfig, LatentConfig, UnifiedConfig
from mmrpt_jax.models.vlm_test import CONFIG, random_parameters
from mmrpt_jax.models.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_parameters(CONFIG))


def split(params):
    """The same over eight devices, every array along its longest axis that divides."""
    mesh = make_mesh()

    def place(leaf):
        axes = [i for i in np.argsort(leaf.shape)[::-1] if leaf.shape[i] % 8 == 0][:1]
        return NamedSharding(mesh, PartitionSpec(*["data" if i in axes else None for i in range(leaf.ndim)]))

    return jax.device_put(params, jax.tree.map(place, params))


def test_parameters_come_back(tmp_path, params):
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(path, params)
    loaded = load_weights(path, abstract_parameters(CONFIG))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    stored = load_file(path)
    np.testing.assert_array_equal(
        stored["decoder.layers.mlp.up.kernel"], params["decoder"]["layers"]["mlp"]["up"]["kernel"]
    )


@pytest.mark.parametrize("experts", ["dense", "moe", "mot"])
def test_a_unified_model_comes_back(experts, tmp_path):
    latent = LatentConfig(channels=2, downsample=4, height=4, width=4)
    config = UnifiedConfig(CONFIG, latent, experts)
    params = random_parameters(config)
    save_weights(tmp_path / "w", params)
    loaded = load_weights(tmp_path / "w", abstract_parameters(config, make_mesh(2, 2, 2)))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert loaded["latents"]["inward"]["kernel"].sharding.spec == PartitionSpec(None, "fsdp")


def test_an_autoencoder_is_stored_under_the_names_of_flux(tmp_path):
    config = AutoencoderConfig(width=8, multipliers=(1, 2), blocks=1, channels=4)
    params = random_parameters(config)
    save_weights(tmp_path / "w", params)
    assert "encoder.down.1.block.0.nin_shortcut.kernel" in load_file(tmp_path / "w")
    jax.tree.map(
        np.testing.assert_array_equal, load_weights(tmp_path / "w", abstract_parameters(config)), params
    )


def test_bfloat16_halves_the_file_and_loads_as_float32(tmp_path, params):
    full, half = tmp_path / "full", tmp_path / "half"
    save_weights(full, params)
    save_weights(half, params, dtype=jnp.bfloat16)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    loaded = load_weights(half, abstract_parameters(CONFIG))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
    # Eight significant bits, rounded to nearest.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2.0**-8), loaded, params)
    exact = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, loaded, exact)


def test_weights_land_in_the_shardings_asked_for(tmp_path, params):
    save_weights(tmp_path / "w", params)
    like = split(jax.tree.map(jnp.zeros_like, params))
    assert len(like["embedding"].addressable_shards[0].data) == CONFIG.vocab_size // 8
    loaded = load_weights(tmp_path / "w", like)
    assert jax.tree.map(lambda x: x.sharding, loaded) == jax.tree.map(lambda x: x.sharding, like)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_sharded_weights_are_stored_whole(tmp_path, params):
    save_weights(tmp_path / "w", split(params))
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "w", params), params)


def test_every_misfit_is_named(tmp_path):
    save_weights(tmp_path / "w", {"a": jnp.zeros(3), "b": {"c": jnp.zeros((2, 2)), "old": jnp.zeros(1)}})
    like = {"a": jnp.zeros(4), "b": {"c": jnp.zeros((2, 2)), "new": jnp.zeros(1)}}
    misfits = ("missing b.new (1,)", "unexpected b.old (1,)", "a is (3,), the model wants (4,)")
    with pytest.raises(ValueError, match=re.escape("\n  ".join(["does not fit this model:", *misfits]))):
        load_weights(tmp_path / "w", like)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tmp_path / "w", {})
