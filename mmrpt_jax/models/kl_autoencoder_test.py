import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmrpt_jax.models.autoencoder import to_pixels
from mmrpt_jax.models.initialise import abstract_parameters, count_parameters, initialise
from mmrpt_jax.models.kl_autoencoder import (
    AutoencoderNetwork,
    KLAutoencoder,
    Posterior,
    ResidualBlock,
    reconstruction_loss,
)
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.models.unified_config import AutoencoderConfig

CONFIG = AutoencoderConfig(width=8, multipliers=(1, 2), blocks=1, channels=4)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def params():
    return initialise(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def flux():
    return abstract_parameters(AutoencoderConfig())


def names(tree):
    return {".".join(part.key for part in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}


def test_flux_has_as_many_parameters(flux):
    # Those of Stable Diffusion's autoencoder (34,163,592 and 49,490,179), with 16 latent channels for its 4.
    assert count_parameters(flux["encoder"]) == 34_163_592 + (32 - 8) * (512 * 9 + 1)
    assert count_parameters(flux["decoder"]) == 49_490_179 + (16 - 4) * 9 * 512


def test_names_are_those_of_flux(flux):
    """Rebuilt from the loops of FLUX's own module, and some shapes by hand."""
    parts = {"conv": ("kernel", "bias"), "norm": ("scale", "bias")}
    block = {"norm1": "norm", "conv1": "conv", "norm2": "norm", "conv2": "conv"}
    attention = {"norm": "norm", "q": "conv", "k": "conv", "v": "conv", "proj_out": "conv"}
    modules = {
        f"{half}.{name}": "conv" for half in ("encoder", "decoder") for name in ("conv_in", "conv_out")
    }
    modules |= {f"{half}.norm_out": "norm" for half in ("encoder", "decoder")}
    for half in ("encoder", "decoder"):
        modules |= {f"{half}.mid.attn_1.{name}": kind for name, kind in attention.items()}
        modules |= {f"{half}.mid.block_{i}.{name}": kind for i in (1, 2) for name, kind in block.items()}
    for level in range(4):
        for b in range(2):
            modules |= {f"encoder.down.{level}.block.{b}.{name}": kind for name, kind in block.items()}
        for b in range(3):
            modules |= {f"decoder.up.{level}.block.{b}.{name}": kind for name, kind in block.items()}
    modules |= {f"encoder.down.{level}.downsample.conv": "conv" for level in (0, 1, 2)}
    modules |= {f"decoder.up.{level}.upsample.conv": "conv" for level in (1, 2, 3)}
    # Where channels change: 128 -> 256 -> 512 on the way down, 512 -> 256 -> 128 on the way up.
    shortcuts = ("encoder.down.1", "encoder.down.2", "decoder.up.1", "decoder.up.0")
    modules |= {f"{level}.block.0.nin_shortcut": "conv" for level in shortcuts}
    expected = {f"{name}.{part}" for name, kind in modules.items() for part in parts[kind]}
    found = names(flux)
    assert found.keys() == expected
    assert found["encoder.conv_in.kernel"] == (3, 3, 3, 128)
    assert found["encoder.conv_out.kernel"] == (3, 3, 512, 32)
    assert found["encoder.down.1.block.0.nin_shortcut.kernel"] == (1, 1, 128, 256)
    assert found["decoder.conv_in.kernel"] == (3, 3, 16, 512)
    assert found["decoder.up.0.block.0.conv1.kernel"] == (3, 3, 256, 128)


def test_its_kernels_are_sharded():
    placed = abstract_parameters(CONFIG, make_mesh(2, 4, 1))
    specs = dict(zip(names(placed), jax.tree.leaves(placed), strict=True))
    assert specs["encoder.down.1.block.0.conv2.kernel"].sharding.shard_shape((3, 3, 16, 16)) == (3, 3, 16, 4)
    assert specs["encoder.conv_in.bias"].sharding.is_fully_replicated


def convolve(x, params):
    """3x3 on maps that are padded already, stride 1."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    kernel = np.asarray(params["kernel"])
    taps = [x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
    return np.sum(taps, axis=0) + np.asarray(params["bias"])


def test_resampling_by_hand():
    """Down: a row and a column of zeros behind the image, every second place. Up: every place twice, both ways."""
    config = AutoencoderConfig(width=8, multipliers=(1, 1), blocks=0, channels=4)
    params = initialise(config, jax.random.key(0))
    watched = functools.partial(AutoencoderNetwork(config).apply, capture_intermediates=True)
    _, seen = jax.jit(watched)({"params": params}, to_pixels(IMAGES))
    encoder, decoder = seen["intermediates"]["encoder"], seen["intermediates"]["decoder"]

    def output(half, name):
        return np.asarray(half[name]["__call__"][0])

    padded = np.pad(output(encoder, "conv_in"), ((0, 0), (0, 1), (0, 1), (0, 0)))
    down = convolve(padded, params["encoder"]["down.0.downsample.conv"])[:, ::2, ::2]
    np.testing.assert_allclose(output(encoder, "down.0.downsample.conv"), down, rtol=1e-4, atol=1e-4)
    wide = output(decoder, "up.1.block.0").repeat(2, axis=1).repeat(2, axis=2)
    up = convolve(np.pad(wide, ((0, 0), (1, 1), (1, 1), (0, 0))), params["decoder"]["up.1.upsample.conv"])
    np.testing.assert_allclose(output(decoder, "up.1.upsample.conv"), up, rtol=1e-4, atol=1e-4)


def test_a_residual_block_by_hand():
    """Eight channels make eight groups: each channel is normalised by itself."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 4, 4, 8)).astype(np.float32)
    block = ResidualBlock(8)
    variables = jax.tree.map(jnp.asarray, block.init(jax.random.key(0), x))
    params = jax.tree.map(lambda box: box.value, variables, is_leaf=lambda v: hasattr(v, "value"))["params"]

    def normed_swish(x):
        x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-6)
        return x / (1 + np.exp(-x))

    def conv(name, x):
        return convolve(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), params[name])

    h = conv("conv2", normed_swish(conv("conv1", normed_swish(x))))
    np.testing.assert_allclose(block.apply({"params": params}, x), x + h, rtol=1e-4, atol=1e-4)


def test_latents_are_scaled_means(params):
    coder = KLAutoencoder(CONFIG, params)
    latents = jax.jit(KLAutoencoder.encode)(coder, IMAGES.reshape(2, 2, 8, 8, 3))
    assert latents.shape == (2, 2, 4, 4, coder.channels)
    assert coder.downsample == 2
    posterior = AutoencoderNetwork(CONFIG).apply(
        {"params": params}, to_pixels(IMAGES), method=AutoencoderNetwork.encode
    )
    expected = (np.asarray(posterior.mean) - 0.1159) * 0.3611
    np.testing.assert_allclose(latents.reshape(4, 4, 4, 4), expected, rtol=1e-5, atol=1e-5)
    decoded = jax.jit(KLAutoencoder.decode)(coder, latents)
    network = AutoencoderNetwork(CONFIG).apply({"params": params}, to_pixels(IMAGES))
    np.testing.assert_allclose(decoded.reshape(4, 8, 8, 3), network, rtol=1e-4, atol=1e-4)


def test_samples_and_kl_of_a_posterior():
    mean, logvar = jnp.full((1, 1, 1, 20_000), 2.0), jnp.full((1, 1, 1, 20_000), np.log(0.25))
    sample = Posterior(mean, logvar).sample(jax.random.key(0))
    assert float(sample.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(0.5, abs=0.02)
    # ½ (4 + ¼ − 1 − log ¼) per dimension.
    kl = Posterior(mean[..., :3], logvar[..., :3]).kl()
    np.testing.assert_allclose(kl, [3 * 0.5 * (4 + 0.25 - 1 - np.log(0.25))], rtol=1e-6)


def test_a_few_steps_of_training_lower_the_loss(params):
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, key):
        def loss(params):
            total, count, metrics = reconstruction_loss(CONFIG, params, IMAGES, key, kl_weight=1e-3)
            return total / count, metrics

        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value, metrics

    state, losses = optimizer.init(params), []
    for i in range(20):
        params, state, value, metrics = step(params, state, jax.random.key(i))
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]
    error, values = metrics["absolute_error"]
    kl, images = metrics["kl"]
    assert (float(values), float(images)) == (IMAGES.size, len(IMAGES))
    assert losses[-1] == pytest.approx(float((error + 1e-3 * kl) / values), rel=1e-5)
