import dataclasses

import jax
import numpy as np
import pytest

from mmrpt_jax.models.config import ConnectorConfig, TransformerConfig, VisionConfig
from mmrpt_jax.models.patches import ImagePatches, cut_images, patchify
from mmrpt_jax.models.vision import VisionTower
from mmrpt_jax.models.vlm_test import CONFIG, LOCAL, random_parameters

VISION, WIDTH = CONFIG.vision, CONFIG.decoder.width
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)

tokens_of = jax.jit(
    lambda config, params, images: VisionTower(config, WIDTH).apply({"params": params}, images),
    static_argnums=0,
)


def encode(config, params, images):
    return tokens_of(config, params, images[:, None]).features


@pytest.fixture(scope="module")
def params():
    return random_parameters(CONFIG)["vision"]


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


def in_one_row(images, config):
    """Images of any sizes as the patches of one prompt, with some padding."""
    merge = config.connector.merge
    cut = [cut_images(image[None], config.patch_size, merge) for image in images]
    joined = [np.concatenate([x[field][0] for x in cut]) for field in range(3)]
    joined.append(np.repeat(np.arange(len(cut)), [x.rows.shape[1] for x in cut]))
    fills = (9, 0, 0, -1)
    ends = [[(0, merge**2), *[(0, 0)] * (x.ndim - 1)] for x in joined]
    padded = (np.pad(x, end, constant_values=fill) for x, end, fill in zip(joined, ends, fills, strict=True))
    return ImagePatches(*(x[None] for x in padded))


@pytest.mark.parametrize("positions", ["none", "nearest", "bilinear"])
def test_images_of_a_row_are_seen_as_alone(positions):
    """Of different sizes, through windows, in chunks, merged, and deep-stacked."""
    tower = dataclasses.replace(LOCAL.vision.transformer, query_chunk=7)
    config = dataclasses.replace(LOCAL.vision, transformer=tower, positions=positions)
    params = random_parameters(dataclasses.replace(LOCAL, vision=config))["vision"]
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (4 * h, 4 * w, 3), np.uint8) for h, w in ((2, 4), (6, 2), (4, 6))]
    row = tokens_of(config, params, in_one_row(images, config))
    start = 0
    for number, image in enumerate(images):
        alone = tokens_of(config, params, image[None, None])
        end = start + alone.rows.shape[1]
        np.testing.assert_allclose(row.features[0, start:end], alone.features[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            row.deepstack[:, 0, start:end], alone.deepstack[:, 0], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(row.rows[0, start:end], alone.rows[0])
        np.testing.assert_array_equal(row.columns[0, start:end], alone.columns[0])
        np.testing.assert_array_equal(row.image[0, start:end], number)
        start = end
    np.testing.assert_array_equal(row.image[0, start:], -1)


def test_local_layers_see_their_window():
    tower = dataclasses.replace(LOCAL.vision.transformer, local_layers=(True, True))
    config = dataclasses.replace(LOCAL.vision, transformer=tower)
    params = random_parameters(dataclasses.replace(LOCAL, vision=config))["vision"]
    image = np.random.default_rng(2).integers(0, 256, (16, 16, 3), np.uint8)
    changed = image.copy()
    changed[:8, :8] = 0
    # A window is two patches of four pixels wide, and so is a visual token.
    before, after = (tokens_of(config, params, x[None, None]).features[0] for x in (image, changed))
    np.testing.assert_array_equal(np.abs(before - after).max(-1) > 1e-6, [True, False, False, False])


def test_pooled_patches_are_normed_and_mapped():
    connector = ConnectorConfig(2, pool="mean", norm="rms_centred", hidden=0, bias=False)
    config = dataclasses.replace(VISION, connector=connector, image_height=32, token_positions=True)
    plain = dataclasses.replace(
        config, connector=ConnectorConfig(hidden=0, bias=False), token_positions=False
    )
    width = config.transformer.width
    params = random_parameters(dataclasses.replace(CONFIG, vision=config))["vision"]
    identity = params | {"connector_out": {"kernel": np.eye(width, WIDTH, dtype=np.float32)}}
    images = np.random.default_rng(3).integers(0, 256, (1, 1, 32, 16, 3), np.uint8)
    patches = np.float64(tokens_of(plain, identity, images).features[0]).reshape(2, 2, 2, width)
    mean = patches.mean(axis=(1, 2))
    normed = mean / np.sqrt((mean**2).mean(-1, keepdims=True) + 1e-6)
    expected = normed * (1 + params["connector_norm"]["scale"]) @ params["connector_out"]["kernel"]
    found = tokens_of(config, params, images).features[0]
    # Fixed positions: sin and cos of the column, which is 0, and of the row.
    expected[:, WIDTH // 4 : WIDTH // 2] += 1
    angles = np.arange(2)[:, None] * 10_000.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    expected[:, WIDTH // 2 :] += np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_still_image_is_seen_in_every_frame(params):
    """Twice the same pixels, under one half of the matrix each: once under their sum."""
    kernel = np.asarray(params["patch_embedding"]["kernel"])
    halves = np.random.default_rng(4).normal(size=kernel.shape).astype(np.float32) / 10
    twice = params["patch_embedding"] | {"kernel": np.concatenate([halves, kernel - halves])}
    found = encode(dataclasses.replace(VISION, frames=2), params | {"patch_embedding": twice}, IMAGES)
    np.testing.assert_allclose(found, encode(VISION, params, IMAGES), rtol=1e-4, atol=1e-4)


def test_windows_and_merging_are_checked():
    with pytest.raises(ValueError, match="local layers: say in `window`"):
        dataclasses.replace(LOCAL.vision, window=0)
    with pytest.raises(ValueError, match="grid of 2x2 patches does not divide into squares of merge 3"):
        dataclasses.replace(VISION, connector=ConnectorConfig(3))
    with pytest.raises(ValueError, match="local_layers names 1 layers of 2: name all"):
        dataclasses.replace(LOCAL.decoder, local_layers=(True,))
