"""TPU generations by the name that a slice begins with: peak, memory, bandwidths."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Chip(NamedTuple):
    """One device as JAX counts them.

    Attributes:
        flops: peak of bfloat16 products, FLOP/s.
        memory: HBM, bytes.
        bandwidth: of the HBM, bytes/s.
        links: to the other chips, all together and one way, bytes/s.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


# From Google's public tables (cloud.google.com/tpu/docs, the page of each generation, "system architecture"), where
# links are given in both directions. A chip is one device; but of TPU7x it is two, each with half of 2,307 TFLOP/s,
# 192 GiB, 7.38 TB/s and 1.2 TB/s.
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "v5e": Chip(197e12, 16 * 2**30, 0.81e12, 200e9),
        "v5p": Chip(459e12, 95 * 2**30, 2.765e12, 600e9),
        "v6e": Chip(918e12, 32 * 2**30, 1.64e12, 400e9),
        "tpu7x": Chip(1153.5e12, 96 * 2**30, 3.69e12, 300e9),
    }
)
