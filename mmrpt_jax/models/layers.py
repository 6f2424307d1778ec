"""The parts of a transformer block. Every parameter declares its logical axes in the line that makes it."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmrpt_jax.models.config import LoraConfig

_KERNEL = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
# Uniform within ±1/√D, as the authors' code and PEFT have it.
_LORA_A = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · scale, in float32 (Zhang & Sennrich, 2019)."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E D"]:
        """Normalises the last axis; computes in float32 and answers in the type of `x`."""
        ones = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale = self.param("scale", ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return (normed * scale).astype(x.dtype)


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
        y = x @ kernel.astype(x.dtype)
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, (self.axes[-1],))
            y = y + self.param("bias", zeros, (self.features,)).astype(x.dtype)
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


class GatedMLP(nn.Module):
    """down(silu(gate(x)) · up(x)) (Shazeer, 2020: SwiGLU)."""

    width: int
    mlp: int
    lora: LoraConfig | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*E D"]) -> Float[Array, "*E D"]:
        """Widens to `mlp` features and comes back to `width`."""
        gate = Linear(self.mlp, ("embed", "mlp"), lora=self.lora, name="gate")(x)
        up = Linear(self.mlp, ("embed", "mlp"), lora=self.lora, name="up")(x)
        return Linear(self.width, ("mlp", "embed"), lora=self.lora, name="down")(nn.silu(gate) * up)


def rotate(
    x: Float[Array, "*E T N H"], positions: Int[Array, "*E T"], *, theta: float
) -> Float[Array, "*E T N H"]:
    """Rotary positions (Su et al., 2021), halves convention: (x₁, x₂) → (x₁cos − x₂sin, x₂cos + x₁sin)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
