"""FLUX's autoencoder against its own forward pass in torch, on random weights under its names.

Needs torch: `pip install 'mmrpt_jax[parity]'`.
"""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmrpt_jax.models import KLAutoencoder, abstract_parameters
from mmrpt_jax.models.export_weights import write_weights
from mmrpt_jax.models.families import flux
from mmrpt_jax.models.import_weights import read_weights
from tests.family_parity import torch

WIDTH, MULTIPLIERS, BLOCKS, CHANNELS = 32, (1, 2), 1, 3
HALVES = ("encoder", "decoder")


def tensor_shapes():
    """Names and shapes of all tensors, as the loops of FLUX's module make them."""
    convolutions, norms = {}, {}

    def block(name, inward, outward):
        norms.update({f"{name}.norm1": inward, f"{name}.norm2": outward})
        convolutions.update({f"{name}.conv1": (outward, inward, 3), f"{name}.conv2": (outward, outward, 3)})
        if inward != outward:
            convolutions[f"{name}.nin_shortcut"] = (outward, inward, 1)

    deepest = WIDTH * MULTIPLIERS[-1]
    for half in HALVES:
        block(f"{half}.mid.block_1", deepest, deepest)
        block(f"{half}.mid.block_2", deepest, deepest)
        norms[f"{half}.mid.attn_1.norm"] = deepest
        for part in ("q", "k", "v", "proj_out"):
            convolutions[f"{half}.mid.attn_1.{part}"] = (deepest, deepest, 1)
    channels = WIDTH
    for level, multiplier in enumerate(MULTIPLIERS):
        for index in range(BLOCKS):
            block(f"encoder.down.{level}.block.{index}", channels, WIDTH * multiplier)
            channels = WIDTH * multiplier
        if level + 1 < len(MULTIPLIERS):
            convolutions[f"encoder.down.{level}.downsample.conv"] = (channels, channels, 3)
    for level, multiplier in reversed(list(enumerate(MULTIPLIERS))):
        for index in range(BLOCKS + 1):
            block(f"decoder.up.{level}.block.{index}", channels, WIDTH * multiplier)
            channels = WIDTH * multiplier
        if level:
            convolutions[f"decoder.up.{level}.upsample.conv"] = (channels, channels, 3)
    norms |= {"encoder.norm_out": deepest, "decoder.norm_out": channels}
    convolutions |= {
        "encoder.conv_in": (WIDTH, 3, 3),
        "encoder.conv_out": (2 * CHANNELS, deepest, 3),
        "decoder.conv_in": (deepest, CHANNELS, 3),
        "decoder.conv_out": (3, channels, 3),
    }
    weights = {f"{name}.weight": (*sizes, sizes[-1]) for name, sizes in convolutions.items()}
    biases = {f"{name}.bias": sizes[:1] for name, sizes in convolutions.items()}
    scales = {f"{name}.{part}": (width,) for name, width in norms.items() for part in ("weight", "bias")}
    return weights | biases | scales


class Flux:
    """Its forward pass; images and latents are [B C h w]."""

    def __init__(self, tensors):
        self.weights = {name: torch.tensor(tensor) for name, tensor in tensors.items()}

    def conv(self, name, x, **options):
        weight = self.weights[f"{name}.weight"]
        options = {"padding": weight.shape[-1] // 2} | options
        return torch.nn.functional.conv2d(x, weight, self.weights[f"{name}.bias"], **options)

    def norm(self, name, x):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.group_norm(x, 32, weight, bias, eps=1e-6)

    def swished(self, name, x):
        return torch.nn.functional.silu(self.norm(name, x))

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", self.swished(f"{name}.norm1", x))
        h = self.conv(f"{name}.conv2", self.swished(f"{name}.norm2", h))
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.weights else x)

    def middle(self, half, x):
        x, name = self.block(f"{half}.mid.block_1", x), f"{half}.mid.attn_1"
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed).flatten(2).transpose(1, 2)[:, None] for part in "qkv")
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        x = x + self.conv(f"{name}.proj_out", seen.reshape(x.shape))
        return self.block(f"{half}.mid.block_2", x)

    def encode(self, pixels):
        x = self.conv("encoder.conv_in", pixels)
        for level in range(len(MULTIPLIERS)):
            for index in range(BLOCKS):
                x = self.block(f"encoder.down.{level}.block.{index}", x)
            if level + 1 < len(MULTIPLIERS):
                x = torch.nn.functional.pad(x, (0, 1, 0, 1))
                x = self.conv(f"encoder.down.{level}.downsample.conv", x, stride=2, padding=0)
        x = self.conv("encoder.conv_out", self.swished("encoder.norm_out", self.middle("encoder", x)))
        mean, _ = x.chunk(2, dim=1)
        return 0.3611 * (mean - 0.1159)

    def decode(self, latents):
        x = self.middle("decoder", self.conv("decoder.conv_in", latents / 0.3611 + 0.1159))
        for level in reversed(range(len(MULTIPLIERS))):
            for index in range(BLOCKS + 1):
                x = self.block(f"decoder.up.{level}.block.{index}", x)
            if level:
                x = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.conv(f"decoder.up.{level}.upsample.conv", x)
        return self.conv("decoder.conv_out", self.swished("decoder.norm_out", x))


@pytest.fixture(scope="module")
def tensors():
    rng, found = np.random.default_rng(0), {}
    for name, shape in tensor_shapes().items():
        scale = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        found[name] = (centre + scale * rng.normal(size=shape)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def ours(tensors, tmp_path_factory):
    config = flux.autoencoder_config({name: tensor.shape for name, tensor in tensors.items()})
    path = tmp_path_factory.mktemp("flux") / "ae.safetensors"
    save_file(tensors, path)
    return KLAutoencoder(config, read_weights(path, flux.weight_table(config), abstract_parameters(config)))


def test_sizes_are_read_from_the_tensors(ours):
    config = ours.config
    assert (config.width, config.multipliers, config.blocks) == (WIDTH, MULTIPLIERS, BLOCKS)
    assert (config.channels, config.shift, config.scale) == (CHANNELS, 0.1159, 0.3611)


def test_latents_and_images(tensors, ours):
    torch.set_num_threads(1)
    theirs = Flux(tensors)
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 8, 3), np.uint8)
    with torch.no_grad():
        latents = theirs.encode(torch.tensor(images / 127.5 - 1.0).float().permute(0, 3, 1, 2))
        pixels = theirs.decode(latents)
    found = jax.jit(KLAutoencoder.encode)(ours, images)
    np.testing.assert_allclose(found, latents.permute(0, 2, 3, 1), atol=1e-4)
    decoded = jax.jit(KLAutoencoder.decode)(ours, latents.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(decoded, pixels.permute(0, 2, 3, 1), atol=1e-4)
    assert latents.std() > 0.1
    assert pixels.std() > 0.1


def test_weights_come_back_bit_for_bit(tensors, ours, tmp_path):
    write_weights(tmp_path, flux.weight_table(ours.config), ours.params)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)
