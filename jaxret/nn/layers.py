"""Small linen layers: dense products that accumulate in float32, norms in float32, the MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxret.ops.activations import ACTIVATIONS
from jaxret.ops.products import dense_product

Axes = tuple[str | None, ...]
PRODUCT = "product"  # the name by which rematerialisation knows what `Dense` makes

KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
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
    kernel_init: Callable = KERNEL_INIT
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n f"]:
        """Applies the product."""
        kernel = parameter(self, "kernel", self.kernel_init, self.axes, (x.shape[-1], self.features))
        y = dense_product(x.reshape(-1, *x.shape[-2:]), kernel.astype(x.dtype)).reshape(*x.shape[:-1], self.features)
        y = checkpoint_name(y, PRODUCT)
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, self.axes[-1:], (self.features,))
            y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y


class Norm(nn.Module):
    """Normalisation over the last axis in float32.

    "rms" is RMSNorm (Zhang and Sennrich 2019, eq. 4), "layer" is LayerNorm (Ba et al. 2016, eq. 4).
    """

    kind: str
    epsilon: float
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Normalises."""
        broadcast = (1,) * (x.ndim - 1) + (-1,)
        scale = parameter(self, "scale", nn.initializers.ones, ("norm",), (x.shape[-1],))
        y = x.astype(jnp.float32)
        if self.kind == "layer":
            y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.epsilon)
        y = y * scale.astype(jnp.float32).reshape(broadcast)
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, ("norm",), (x.shape[-1],))
            y = y + bias.astype(jnp.float32).reshape(broadcast)
        return y.astype(x.dtype)


class MLP(nn.Module):
    """`down(act(up x))`, or with a gate `down(act(gate x) * up x)` (Shazeer 2020, eq. 6)."""

    hidden: int
    activation: str
    gated: bool
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Applies the MLP."""
        up = Dense(self.hidden, ("width", "mlp"), self.use_bias, name="up")(x)
        if self.gated:
            gate = Dense(self.hidden, ("width", "mlp"), self.use_bias, name="gate")(x)
            inner = ACTIVATIONS[self.activation](gate) * up
        else:
            inner = ACTIVATIONS[self.activation](up)
        return Dense(x.shape[-1], ("mlp", "width"), self.use_bias, RESIDUAL_INIT, name="down")(inner)
