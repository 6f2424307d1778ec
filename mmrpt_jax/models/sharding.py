"""One table from logical axes to mesh axes, and what follows from it: where every parameter lives."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

MESH_AXES = ("data", "fsdp", "tensor")
# What a batch is split over: its prompts, never a group.
_PROMPTS = PartitionSpec(("data", "fsdp"))

# Logical axis (named where the parameter is declared) -> mesh axis.
RULES: Mapping[str, str | None] = {
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "rank": None,
    "norm": None,
    "patch": None,
    "image": None,
    "latent": None,
    "frequency": None,
    "channels": "fsdp",
}
# Of weights that are fetched once, to be read for every token.
SAMPLING_RULES: Mapping[str, str | None] = {
    name: None if axis == "fsdp" else axis for name, axis in RULES.items()
}


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over `devices`, or all that there are; one of the sizes may be -1 and takes what the others leave.

    Raises:
        ValueError: more than one size is -1, or the sizes do not multiply to the number of devices; or see
            `device_grid`.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    asked = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
    if sizes.count(-1) > 1:
        raise ValueError(f"at most one mesh axis may be -1, got {asked}")
    known = math.prod(size for size in sizes if size != -1)
    if known > 0:
        sizes = [count // known if size == -1 else size for size in sizes]
    if min(sizes) < 1 or math.prod(sizes) != count:
        raise ValueError(f"a mesh of {asked} does not cover the {count} devices")
    return Mesh(device_grid(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def device_grid(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Devices in the order of a mesh: neighbours where the axes talk most.

    Several slices of a TPU, or nodes of GPUs, joined by a slower network, divide the `data` axis among them, which
    talks once per step; `fsdp` and `tensor` stay inside. Where `data` does not divide, GPUs come node by node.

    Raises:
        ValueError: the `data` axis does not divide into the slices of TPUs.
    """
    slices = len({_slice_of(device) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(tuple(sizes), devices)
    data, *rest = sizes
    if data % slices == 0:
        return mesh_utils.create_hybrid_device_mesh((data // slices, *rest), (slices, 1, 1), devices)
    if devices[0].platform == "tpu":
        raise ValueError(f"data={data} does not divide into the {slices} slices that the devices belong to")
    in_turn = sorted(devices, key=lambda device: (_slice_of(device), device.id))
    return np.asarray(in_turn, dtype=object).reshape(sizes)


def _slice_of(device: Any) -> int:
    """XLA numbers the slices of a TPU so, and the nodes of GPUs."""
    return getattr(device, "slice_index", 0)


def parameter_shardings(boxed, mesh: Mesh | AbstractMesh, rules: Mapping[str, str | None] = RULES):
    """Shardings of a tree of (abstract) boxed parameters; an axis that does not divide stays whole.

    Raises:
        KeyError: a logical axis is not in the table.
    """

    def place(spec: PartitionSpec, leaf) -> NamedSharding:
        axes = [None if name is None else rules[name] for name in spec]
        fits = [
            axis if axis is not None and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, leaf.shape, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*fits))

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree.map(place, nn.get_partition_spec(boxed), nn.unbox(boxed), is_leaf=is_spec)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over prompts; the group axis never is."""
    return NamedSharding(mesh, _PROMPTS)


def split_over_prompts(x: Float[Array, " B *E"]) -> Float[Array, " B *E"]:
    """Keeps features split as their batch is, under the mesh of `jax.set_mesh`; without one, `x` itself.

    Left to itself the partitioner follows the weights: it splits features over `fsdp`, keeps every prompt on every
    device, and adds up whole activations across them at each product, where it should fetch a layer's weights.
    """
    if present_mesh() is None:
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*_PROMPTS, *free))


def prompt_shards() -> int:
    """Parts that batches are split into under the mesh of `jax.set_mesh`; 1 without one."""
    mesh = present_mesh()
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def present_mesh() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`, if it is one of ours and its partitioning is the compiler's."""
    mesh = jax.sharding.get_abstract_mesh()
    automatic = all(kind == AxisType.Auto for kind in mesh.axis_types)
    return mesh if mesh.axis_names == MESH_AXES and automatic else None
