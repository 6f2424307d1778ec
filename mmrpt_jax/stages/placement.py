"""Where parameters live: a line for each, with its shape, the axes of the mesh that split it, and bytes on a device."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from mmrpt_jax.models import UnifiedConfig, VLMConfig, abstract_parameters
from mmrpt_jax.models.paths import path_of
from mmrpt_jax.models.sharding import make_mesh
from mmrpt_jax.reporting.table import format_table

_COLUMNS = ("parameter", "shape", "type", "split over", "MiB of a device")


def describe_placement(
    config: ConfigDict, model: VLMConfig | UnifiedConfig, devices: Sequence[jax.Device] | None = None
) -> str:
    """A table of a model's parameters on the mesh of a config.

    Args:
        config: with its `mesh`.
        model: whose parameters.
        devices: of the mesh; None: those that there are.
    """
    params = abstract_parameters(model, make_mesh(**config.mesh.to_dict(), devices=devices))
    rows = [_row(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    total = sum(row["MiB of a device"] for row in rows)
    rows.append({"parameter": "all", "shape": "", "type": "", "split over": "", "MiB of a device": total})
    return format_table(rows, _COLUMNS, digits=2)


def _row(name: str, leaf: Any) -> dict[str, Any]:
    shard = leaf.sharding.shard_shape(leaf.shape)
    sizes = leaf.sharding.mesh.shape
    axes = [axis if axis and sizes[axis] > 1 else None for axis in leaf.sharding.spec]
    return {
        "parameter": name,
        "shape": " × ".join(map(str, leaf.shape)),
        "type": str(leaf.dtype),
        "split over": ", ".join(axis or "–" for axis in axes) if any(axes) else "",
        "MiB of a device": math.prod(shard) * leaf.dtype.itemsize / 2**20,
    }
