"""Small linen layers: dense products that accumulate in float32, norms in float32, the gated MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxret.ops.products import dense_product

Axes = tuple[str | None, ...]

RESIDUAL_INIT = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


def parameter(module: nn.Module, name: str, init: Callable, axes: Axes, shape: tuple[int, ...]) -> jax.Array:
    """A float32 parameter of a module, with the logical names of its axes."""
    value: Any = module.param(name, nn.with_logical_partitioning(init, axes), shape)
    return value


class Dense(nn.Module):
    """`x @ kernel + bias` over the last axis, accumulated in float32, in the dtype of `x`."""

    features: int
    axes: Axes
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n f"]:
        """Applies the product."""
        kernel = parameter(self, "kernel", self.kernel_init, self.axes, (x.shape[-1], self.features))
        y = dense_product(x.reshape(-1, *x.shape[-2:]), kernel.astype(x.dtype)).reshape(*x.shape[:-1], self.features)
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, self.axes[-1:], (self.features,))
            y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis in float32 (Zhang and Sennrich 2019, eq. 4)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Normalises."""
        scale = parameter(self, "scale", nn.initializers.ones, ("width",), (x.shape[-1],))
        y = x.astype(jnp.float32)
        y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        return (y * scale.astype(jnp.float32).reshape((1,) * (y.ndim - 1) + (-1,))).astype(x.dtype)


class GatedMLP(nn.Module):
    """`down(gelu(gate x) * up x)` (GeGLU, Shazeer 2020, eq. 6)."""

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Applies the MLP."""
        gate = Dense(self.hidden, ("width", "mlp"), name="gate")(x)
        up = Dense(self.hidden, ("width", "mlp"), name="up")(x)
        return Dense(x.shape[-1], ("mlp", "width"), kernel_init=RESIDUAL_INIT, name="down")(jax.nn.gelu(gate) * up)
