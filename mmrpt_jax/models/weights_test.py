import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmrpt_jax.models.initialise import abstract_parameters, initialise
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.vlm_test import CONFIG
from mmrpt_jax.models.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def params():
    return initialise(CONFIG, jax.random.key(0))


def test_parameters_come_back(tmp_path, params):
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(path, params)
    loaded = load_weights(path, abstract_parameters(CONFIG))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    stored = load_file(path)
    np.testing.assert_array_equal(
        stored["decoder.layers.mlp.up.kernel"], params["decoder"]["layers"]["mlp"]["up"]["kernel"]
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
    like = initialise(CONFIG, jax.random.key(1), make_mesh(2, 2, 2))
    loaded = load_weights(tmp_path / "w", like)
    assert jax.tree.map(lambda x: x.sharding, loaded) == jax.tree.map(lambda x: x.sharding, like)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_sharded_weights_are_stored_whole(tmp_path, params):
    save_weights(tmp_path / "w", initialise(CONFIG, jax.random.key(0), make_mesh(2, 2, 2)))
    jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "w", params), params)


def test_every_misfit_is_named(tmp_path):
    save_weights(tmp_path / "w", {"a": jnp.zeros(3), "b": {"c": jnp.zeros((2, 2)), "old": jnp.zeros(1)}})
    like = {"a": jnp.zeros(4), "b": {"c": jnp.zeros((2, 2)), "new": jnp.zeros(1)}}
    message = "does not fit this model: missing b.new; unexpected b.old; a is (3,), the model wants (4,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_weights(tmp_path / "w", like)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tmp_path / "w", {})
