import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmrpt_jax.models.config import TransformerConfig, VisionConfig
from mmrpt_jax.models.patches import patchify
from mmrpt_jax.models.vision import VisionTower
from mmrpt_jax.models.vlm_test import CONFIG, random_parameters

VISION, WIDTH = CONFIG.vision, CONFIG.decoder.width
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)

encode = jax.jit(
    lambda config, params, images: (
        VisionTower(config, WIDTH).apply({"params": params}, images[:, None]).features
    ),
    static_argnums=0,
)


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)["vision"]


def test_patches_go_row_by_row():
    image = np.arange(4 * 6 * 2).reshape(1, 4, 6, 2)
    patches = patchify(jnp.asarray(image), 2)
    assert patches.shape == (1, 6, 8)
    for index in range(6):
        row, column = divmod(index, 3)
        window = image[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(patches[0, index], window.reshape(-1))


def reference(params, images, config):
    """A ViT with one layer and its connector in NumPy, float64, head by head."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    layer = jax.tree.map(lambda leaf: leaf[0], p["stack"]["layers"])
    cfg = config.transformer

    def dense(x, weights):
        return x @ weights["kernel"] + weights.get("bias", 0.0)

    def norm(x, weights):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + cfg.norm_eps) * weights["scale"]

    def gelu(x):
        return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    patches = np.asarray(patchify(images / 127.5 - 1.0, config.patch_size))
    x = dense(patches, p["patch_embedding"]) + p["positions"]
    normed, seen = norm(x, layer["attention_norm"]), []
    for head in range(cfg.heads):
        mine = slice(head * cfg.head_dim, (head + 1) * cfg.head_dim)
        kv_head = head * cfg.kv_heads // cfg.heads
        shared = slice(kv_head * cfg.head_dim, (kv_head + 1) * cfg.head_dim)
        queries, keys = dense(normed, layer["query"])[..., mine], dense(normed, layer["key"])[..., shared]
        weights = np.exp(queries @ keys.swapaxes(1, 2) / np.sqrt(cfg.head_dim))
        seen.append(weights / weights.sum(-1, keepdims=True) @ dense(normed, layer["value"])[..., shared])
    x = x + dense(np.concatenate(seen, -1), layer["out"])
    normed, mlp = norm(x, layer["mlp_norm"]), layer["mlp"]
    gate = dense(normed, mlp["gate"])
    x = x + dense(gate / (1 + np.exp(-gate)) * dense(normed, mlp["up"]), mlp["down"])
    x = gelu(dense(norm(x, p["stack"]["final_norm"]), p["connector_in"]))
    return dense(x, p["connector_out"])


def test_tower_equals_a_reference_in_numpy(params):
    features = encode(VISION, params, IMAGES)
    assert features.shape == (2, 4, WIDTH)
    np.testing.assert_allclose(features, reference(params, IMAGES, VISION), rtol=1e-4, atol=1e-4)


def test_attention_is_bidirectional_in_chunks_too(params):
    """Every patch sees the patches behind it, also those of later query chunks."""
    chunked = dataclasses.replace(VISION, transformer=dataclasses.replace(VISION.transformer, query_chunk=1))
    whole = encode(VISION, params, IMAGES)
    np.testing.assert_allclose(encode(chunked, params, IMAGES), whole, rtol=1e-5, atol=1e-5)
    changed = IMAGES.copy()
    changed[:, 8:, 8:] = 0
    assert np.abs(encode(chunked, params, changed) - whole)[:, 0].max() > 1e-2


def test_patches_know_where_they_stand(params):
    mirrored = np.concatenate([IMAGES[:, :, 8:], IMAGES[:, :, :8]], axis=2)
    swapped = encode(VISION, params, mirrored)[:, [1, 0, 3, 2]]
    assert np.abs(swapped - encode(VISION, params, IMAGES)).max() > 1e-2


def test_images_may_be_oblong():
    config = VisionConfig(8, 24, 8, VISION.transformer)
    assert config.grid == (1, 3)
    assert config.num_patches == 3
    params = random_parameters(dataclasses.replace(CONFIG, vision=config))["vision"]
    assert encode(config, params, np.zeros((1, 8, 24, 3), np.uint8)).shape == (1, 3, WIDTH)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="16x20 is not a multiple of patch_size 8"):
        VisionConfig(16, 20, 8, VISION.transformer)
    with pytest.raises(ValueError, match=r"heads \(4\) must be a multiple of kv_heads \(3\)"):
        TransformerConfig(width=8, layers=1, heads=4, kv_heads=3, head_dim=2, mlp=8)
    with pytest.raises(ValueError, match=r"head_dim \(3\) must be even"):
        TransformerConfig(width=8, layers=1, heads=4, kv_heads=2, head_dim=3, mlp=8)
