"""The parts of a transformer block. Every parameter declares its logical axes in the line that makes it."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmrpt_jax.models.config import LoraConfig

_KERNEL = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
# Uniform within ±1/√D, as the authors' code and PEFT have it.
_LORA_A = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · scale, in float32 (Zhang & Sennrich, 2019).

    A centred scale is stored as its distance from 1 (Gemma).
    """

    eps: float = 1e-6
    centred: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E D"]:
        """Normalises the last axis; computes in float32 and answers in the type of `x`."""
        start = nn.initializers.zeros if self.centred else nn.initializers.ones
        scale = self.param("scale", nn.with_logical_partitioning(start, ("norm",)), (x.shape[-1],))
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return (normed * (1.0 + scale.astype(jnp.float32) if self.centred else scale)).astype(x.dtype)


class LayerNorm(nn.Module):
    """(x − mean(x)) / sqrt(var(x) + eps) · scale + bias, in float32 (Ba et al., 2016)."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E D"]:
        """Normalises the last axis; computes in float32 and answers in the type of `x`."""
        ones, zeros = (
            nn.with_logical_partitioning(start, ("norm",))
            for start in (nn.initializers.ones, nn.initializers.zeros)
        )
        scale, bias = self.param("scale", ones, (x.shape[-1],)), self.param("bias", zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + self.eps)
        return (normed * scale + bias).astype(x.dtype)


def make_norm(kind: str, eps: float, name: str | None = None) -> nn.Module:
    """The norm that a config names; `name` is that of its parameters."""
    if kind == "layer":
        return LayerNorm(eps, name=name)
    return RMSNorm(eps, centred=kind == "rms_centred", name=name)


class Linear(nn.Module):
    """x @ kernel (+ bias), the kernel's axes named for the sharding rules; with an adapter if `lora` names it."""

    features: int
    axes: Sequence[str]
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = _KERNEL
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E F"]:
        """Projects the last axis to `features`, in the type of `x`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.with_logical_partitioning(self.kernel_init, tuple(self.axes)), shape)
        # One axis of tokens: of several, XLA's CPU compiler transposes for the kernel's gradient, and drags the
        # elementwise gradients before it (silu's) into that copy, against the grain of memory.
        y = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, (self.axes[-1],))
            y = y + self.param("bias", zeros, (self.features,)).astype(x.dtype)
        y = y.reshape(*x.shape[:-1], self.features)
        if self.lora is not None and self.name in self.lora.targets:
            y = y + self._adapt(x, self.lora)
        return y

    def _adapt(self, x, lora: LoraConfig):
        """(alpha / rank) · (x A) B (Hu et al., 2021); B begins as zeros, and with it what is added."""
        inward, outward = self.axes
        a = nn.with_logical_partitioning(_LORA_A, (inward, "rank"))
        b = nn.with_logical_partitioning(nn.initializers.zeros, ("rank", outward))
        low = x @ self.param("lora_a", a, (x.shape[-1], lora.rank)).astype(x.dtype)
        high = low @ self.param("lora_b", b, (lora.rank, self.features)).astype(x.dtype)
        return high * (lora.alpha / lora.rank)


class MLP(nn.Module):
    """down(f(gate(x)) · up(x)) (Shazeer, 2020), or without a gate down(f(up(x)))."""

    width: int
    mlp: int
    gated: bool = True
    activation: str = "silu"
    use_bias: bool = False
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E D"]:
        """Widens to `mlp` features and comes back to `width`."""
        activate = activation(self.activation)
        options = {"use_bias": self.use_bias, "lora": self.lora}
        inner = Linear(self.mlp, ("embed", "mlp"), **options, name="up")(x)
        if self.gated:
            inner = activate(Linear(self.mlp, ("embed", "mlp"), **options, name="gate")(x)) * inner
        else:
            inner = activate(inner)
        return Linear(self.width, ("mlp", "embed"), **options, name="down")(inner)


def activation(name: str) -> Callable[[Array], Array]:
    """The function that a config names."""
    return {
        "silu": nn.silu,
        "gelu": functools.partial(nn.gelu, approximate=False),
        "gelu_tanh": nn.gelu,
        "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    }[name]
