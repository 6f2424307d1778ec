import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmrpt_jax.models.config import LoraConfig
from mmrpt_jax.models.initialise import abstract_parameters, initialise
from mmrpt_jax.models.layers import Linear
from mmrpt_jax.models.lora import adapt, adapter_only, is_adapter, merge_lora, without_adapters
from mmrpt_jax.models.paths import paths_of
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified_config import LatentConfig, UnifiedConfig
from mmrpt_jax.models.vlm_test import CONFIG, make_batch, random_parameters

RANK, ALPHA = 2, 3.0
# Some matrices of the decoder, and one of the tower.
PATTERNS = ("decoder/layers/(query|mlp)", "vision/.*/value")
LORA = LoraConfig(RANK, ALPHA, ("query", "gate", "up", "down"))


@pytest.fixture(scope="module")
def adapted():
    return adapt(CONFIG, PATTERNS, rank=RANK, alpha=ALPHA)


@pytest.fixture(scope="module")
def params(adapted):
    """All random, so that adapters do something."""
    return random_parameters(adapted)


def test_an_adapter_by_hand():
    rng = np.random.default_rng(0)
    x, w, a, b = (rng.normal(size=shape).astype(np.float32) for shape in [(3, 6), (6, 4), (6, 2), (2, 4)])
    linear = Linear(4, ("embed", "mlp"), lora=LORA, name="query")
    found = linear.apply({"params": {"kernel": w, "lora_a": a, "lora_b": b}}, x)
    np.testing.assert_allclose(found, x @ w + ALPHA / RANK * (x @ a @ b), rtol=1e-4, atol=1e-5)


def test_other_projections_have_none():
    linear = Linear(4, ("embed", "mlp"), lora=LORA, name="key")
    assert set(linear.init(jax.random.key(0), jnp.zeros((1, 6)))["params"]) == {"kernel"}


def test_adapters_are_where_the_patterns_say(adapted):
    found = {path for path in paths_of(abstract_parameters(adapted)) if is_adapter(path)}
    places = [f"decoder/layers/{name}" for name in ("query", "mlp/gate", "mlp/up", "mlp/down")]
    places.append("vision/stack/layers/value")
    assert found == {f"{place}/lora_{side}" for place in places for side in "ab"}
    cfg = CONFIG.decoder
    query = abstract_parameters(adapted)["decoder"]["layers"]["query"]
    assert query["lora_a"].shape == (cfg.layers, cfg.width, RANK)
    assert query["lora_b"].shape == (cfg.layers, RANK, cfg.heads * cfg.head_dim)
    assert adapt(CONFIG, ("vision",), rank=1, alpha=1.0).decoder.lora is None


def test_a_target_that_is_no_projection_is_told_of():
    with pytest.raises(
        ValueError, match="'decoder/layers/qeury' matches nothing, did you mean 'decoder/layers/query'"
    ):
        adapt(CONFIG, ("decoder/layers/qeury",), rank=1, alpha=1.0)


def test_a_fresh_adapter_adds_nothing(adapted):
    """B is zeros, and A is within ±1/√D, with the spread of a uniform distribution."""
    fresh = initialise(adapted, jax.random.key(0))
    adapters = initialise(adapted, jax.random.key(0), part=adapter_only)
    jax.tree.map(np.testing.assert_array_equal, adapters, adapter_only(fresh))
    for path, leaf in zip(sorted(paths_of(adapters)), jax.tree.leaves(adapters), strict=True):
        if path.endswith("lora_b"):
            assert not leaf.any()
        else:
            bound = leaf.shape[-2] ** -0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound, path
            assert np.std(leaf) == pytest.approx(bound / 3**0.5, rel=0.2)


def test_the_same_parameters_without_adapters_are_the_base(adapted, params, forward_of):
    batch = make_batch()
    off = forward_of(CONFIG)(params, *batch).logprobs
    np.testing.assert_array_equal(off, forward_of(CONFIG)(without_adapters(params), *batch).logprobs)
    assert np.abs(off - forward_of(adapted)(params, *batch).logprobs).max() > 1e-2
    assert without_adapters(params)["embedding"] is params["embedding"]


def test_merged_weights_compute_the_same(adapted, params, forward_of):
    merged, batch = merge_lora(params, LORA), make_batch()
    assert jax.tree.structure(merged) == jax.tree.structure(abstract_parameters(CONFIG))
    expected = forward_of(adapted)(params, *batch).logprobs
    np.testing.assert_allclose(forward_of(CONFIG)(merged, *batch).logprobs, expected, rtol=1e-4, atol=1e-4)


def test_adapters_are_sharded_as_their_kernels(adapted):
    mesh = make_mesh(2, 2, 2)
    query = initialise(adapted, jax.random.key(0), mesh)["decoder"]["layers"]["query"]
    assert query["lora_a"].sharding.spec == PartitionSpec(None, "fsdp", None)
    assert query["lora_b"].sharding.spec == PartitionSpec(None, None, "tensor")


def test_adapters_are_float32_beside_a_bfloat16_base(adapted):
    config = dataclasses.replace(adapted, param_dtype="bfloat16")
    types = {is_adapter(path): set() for path in ("", "lora_a")}
    abstract = abstract_parameters(config)
    for path, leaf in zip(paths_of(abstract), jax.tree.leaves(abstract), strict=True):
        types[is_adapter(path)].add(leaf.dtype.name)
    assert types == {True: {"float32"}, False: {"bfloat16"}}


@pytest.mark.parametrize(("experts", "drawn"), [("mot", {"query", "mlp"}), ("moe", {"mlp"})])
def test_experts_that_draw_have_adapters_of_their_own(adapted, experts, drawn):
    latent = LatentConfig(channels=2, downsample=4, height=4, width=4)
    abstract = abstract_parameters(UnifiedConfig(adapted, latent, experts=experts))
    assert set(adapter_only(abstract)["generation"]["layers"]) == drawn
