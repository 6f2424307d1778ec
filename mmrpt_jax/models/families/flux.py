"""The autoencoder of FLUX (`ae.safetensors`): its sizes are those of its tensors, its names are our paths."""

import itertools
from collections.abc import Mapping
from pathlib import Path

from mmrpt_jax.models.checkpoint_files import open_checkpoint
from mmrpt_jax.models.import_weights import read_weights
from mmrpt_jax.models.initialise import abstract_parameters
from mmrpt_jax.models.kl_autoencoder import KLAutoencoder
from mmrpt_jax.models.unified_config import AutoencoderConfig
from mmrpt_jax.models.weight_table import AS_IS, Weight, flatten, permuted

_CONVOLUTION = permuted(2, 3, 1, 0)
# Their shapes tell sizes.
_TELLING = ("encoder.conv_in.weight", "encoder.conv_out.weight", "encoder.down.0.block.0.conv1.weight")


def read_autoencoder(path: Path) -> KLAutoencoder:
    """The autoencoder of a file, float32 on the default device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds another model, or is not sound.
    """
    config = file_config(path)
    return KLAutoencoder(config, read_weights(path, weight_table(config), abstract_parameters(config)))


def file_config(path: Path) -> AutoencoderConfig:
    """Sizes of the autoencoder of a file, told from its header; raises as `read_autoencoder`."""
    return autoencoder_config({name: tensor.shape for name, tensor in open_checkpoint(path).items()})


def autoencoder_config(shapes: Mapping[str, tuple[int, ...]]) -> AutoencoderConfig:
    """Sizes as the shapes of the checkpoint's tensors tell them; shift and scale are FLUX's, no file has them.

    Raises:
        ValueError: the tensors are those of another model.
    """
    if lacking := [name for name in _TELLING if name not in shapes]:
        raise ValueError(f"this is no autoencoder of FLUX's shape: it has no {lacking[0]}")
    block = "encoder.down.{}.block.{}.conv1.weight"
    levels = list(itertools.takewhile(lambda level: block.format(level, 0) in shapes, itertools.count()))
    width = shapes["encoder.conv_in.weight"][0]
    return AutoencoderConfig(
        width=width,
        multipliers=tuple(shapes[block.format(level, 0)][0] // width for level in levels),
        blocks=sum(block.format(0, index) in shapes for index in range(len(shapes))),
        channels=shapes["encoder.conv_out.weight"][0] // 2,
    )


def weight_table(config: AutoencoderConfig) -> list[Weight]:
    """Our weights and theirs: a path with dots, `weight` for what we call `kernel` or `scale`."""
    return [_weight(path) for path in flatten(abstract_parameters(config))]


def _weight(path: str) -> Weight:
    module, leaf = path.replace("/", ".").rsplit(".", 1)
    theirs = leaf if leaf == "bias" else "weight"
    return Weight(path, f"{module}.{theirs}", _CONVOLUTION if leaf == "kernel" else AS_IS)
