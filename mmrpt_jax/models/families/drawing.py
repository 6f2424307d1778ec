"""Families whose checkpoints draw, too. Folders have no layout in common: each is asked whether one is its own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mmrpt_jax.models.autoencoder import Autoencoder
from mmrpt_jax.models.families import bagel, flux
from mmrpt_jax.models.unified_config import UnifiedConfig
from mmrpt_jax.models.weight_table import Weight


class DrawingFamily(NamedTuple):
    """How the folders of one family are read.

    Attributes:
        is_ours: whether a folder is one of them.
        read_config: what its JSON files say.
        model_config: our config, from that, the shapes of the tensors, and the keywords `image_marks` and `image_size`.
        image_marks: the tokens around an image.
        weights_file: where a folder has its weights.
        weights_name: of the one file that its own code opens.
        weight_table: the weights of a config and their names.
        ignored: patterns of names that may be in a checkpoint and are not used.
        fixed_tables: those that are not learned, made from a config and the shapes of the tensors.
        autoencoder: name of the autoencoder's file.
        read_autoencoder: reads it; raises as `import_weights.read_weights`.
    """

    is_ours: Callable[[Path], bool]
    read_config: Callable[[Path], dict[str, Any]]
    model_config: Callable[..., UnifiedConfig]
    image_marks: tuple[str, str]
    weights_file: Callable[[Path], Path]
    weights_name: str
    weight_table: Callable[[UnifiedConfig], list[Weight]]
    ignored: tuple[str, ...]
    fixed_tables: Callable[[UnifiedConfig, Mapping[str, tuple[int, ...]]], dict[str, np.ndarray]]
    autoencoder: str
    read_autoencoder: Callable[[Path], Autoencoder]


DRAWING_FAMILIES: Mapping[str, DrawingFamily] = MappingProxyType(
    {
        "bagel": DrawingFamily(
            bagel.is_ours,
            bagel.read_config,
            bagel.model_config,
            bagel.IMAGE_MARKS,
            bagel.weights_file,
            bagel.WEIGHTS_NAME,
            bagel.weight_table,
            bagel.IGNORED,
            bagel.fixed_tables,
            bagel.AUTOENCODER,
            flux.read_autoencoder,
        )
    }
)


def drawing_family_of(folder: Path) -> str | None:
    """The family that a folder belongs to, as `DRAWING_FAMILIES` names it; None: it is of another kind."""
    return next((name for name, family in DRAWING_FAMILIES.items() if family.is_ours(folder)), None)
