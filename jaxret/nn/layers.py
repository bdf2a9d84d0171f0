"""Small linen layers: dense products that accumulate in float32, norms in float32, the MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxret.nn.placement import Axes, in_use, moved
from jaxret.ops.activations import ACTIVATIONS
from jaxret.ops.normalization import layer_norm, rms_norm
from jaxret.ops.products import dense_product

Normalization = Callable[..., Float[Array, "*n d"]]  # (kind, x, scale, bias or None, epsilon)
NORMS: dict[str, Normalization] = {"layer": layer_norm, "rms": rms_norm}

KEPT = "kept"
KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
RESIDUAL_INIT = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


def parameter(module: nn.Module, name: str, init: Callable, axes: Axes, shape: tuple[int, ...]) -> jax.Array:
    """A float32 parameter of a module, with the logical names of its axes."""
    value: Any = module.param(name, nn.with_logical_partitioning(init, axes), shape)
    return value


def kept(x: jax.Array) -> jax.Array:
    """`x`, marked as worth its memory where layers are rematerialised: what is made of it is cheap to make again."""
    return checkpoint_name(x, KEPT)


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
        bias = None
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, self.axes[-1:], (self.features,)).astype(x.dtype)
        y = self._product(x.reshape(-1, *x.shape[-2:]), kernel.astype(x.dtype), bias)
        return y.reshape(*x.shape[:-1], self.features)

    def _product(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        """The product with the kernel where it is used; the backward pass brings it there again, not to keep it."""

        def product(x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
            return dense_product(x, in_use(kernel, self.axes), bias)

        return (jax.checkpoint(product, prevent_cse=False) if moved() else product)(x, kernel, bias)


def plain_normalization(
    kind: str, x: Float[Array, "*n d"], scale: Float[Array, " d"], bias: Float[Array, " d"] | None, epsilon: float
) -> Float[Array, "*n d"]:
    """The normalisation of a kind in `NORMS`."""
    return NORMS[kind](x, scale, bias, epsilon)


class Norm(nn.Module):
    """Normalisation over the last axis in float32, of a kind in `NORMS`."""

    kind: str
    epsilon: float
    use_bias: bool = False
    normalization: Normalization = plain_normalization

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Normalises."""
        scale = parameter(self, "scale", nn.initializers.ones, ("norm",), (x.shape[-1],))
        bias = None
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, ("norm",), (x.shape[-1],))
        return self.normalization(self.kind, x, scale, bias, self.epsilon)


class MLP(nn.Module):
    """`down(act(up x))`, or with a gate `down(act(gate x) * up x)` (Shazeer 2020, eq. 6)."""

    hidden: int
    activation: str
    gated: bool
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Applies the MLP."""
        up = kept(Dense(self.hidden, ("width", "mlp"), self.use_bias, name="up")(x))
        if self.gated:
            gate = kept(Dense(self.hidden, ("width", "mlp"), self.use_bias, name="gate")(x))
            inner = ACTIVATIONS[self.activation](gate) * up
        else:
            inner = ACTIVATIONS[self.activation](up)
        return Dense(x.shape[-1], ("mlp", "width"), self.use_bias, RESIDUAL_INIT, name="down")(inner)
