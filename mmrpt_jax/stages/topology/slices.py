"""Slices of TPUs by name, as the compiler knows them."""

import importlib.util
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.experimental.topologies import get_topology_desc

from mmrpt_jax.stages.checks import ConfigError
from mmrpt_jax.stages.topology.chips import CHIPS, Chip

# There is no TPU whose name and neighbours could be asked for, and several processes may compile at a time.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


class Slice(NamedTuple):
    """A part of a pod.

    Attributes:
        name: such as "v5p:4x4x4".
        chip: what it is made of.
        devices: to make a mesh of; nothing can be put on them.
    """

    name: str
    chip: Chip
    devices: Sequence[jax.Device]


def open_slice(name: str) -> Slice:
    """The slice of a name: generation, colon, chips each way, as in "v5e:4x4". Needs the extra `tpu`, and no TPU.

    This process computes on its CPU from here on.

    Raises:
        ConfigError: the compiler is not installed, or knows no such slice.
    """
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        raise ConfigError(
            f"--topology {name}: a slice begins with its generation, {', '.join(CHIPS)}, as in v5p:4x4x4"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology {name}: the compiler for TPUs is not installed: pip install 'mmrpt_jax[tpu]', on any machine"
        )
    os.environ |= _ENVIRONMENT
    jax.config.update("jax_platforms", "cpu")
    try:
        devices = get_topology_desc(platform="tpu", topology_name=name).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"--topology {name}: there is no such slice: {str(error).splitlines()[0]}"
        ) from error
    return Slice(name, CHIPS[kind], devices)
