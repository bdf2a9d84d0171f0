"""Activations by the names that checkpoints give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Activation = Callable[[Float[Array, "*n"]], Float[Array, "*n"]]


def pointwise(function: Activation) -> Activation:
    """`function` computed in float32, its value in the dtype of its argument.

    The backward pass keeps one array: on a CPU the argument, where computing the slope again costs less than writing it
    and reading it, elsewhere the slope. Bfloat16 is not rounded to between the function's own steps, which costs a CPU
    more than the steps.
    """

    def value_and_slope(x):
        y = x.astype(jnp.float32)
        value, slope = jax.jvp(function, (y,), (jnp.ones_like(y),))
        return value.astype(x.dtype), slope.astype(x.dtype)

    def slope_again(x, cotangent):
        # Without a barrier XLA would keep the steps that the value and its slope share.
        x, cotangent = lax.optimization_barrier((x, cotangent))
        return cotangent * value_and_slope(x)[1]

    @jax.custom_vjp
    def applied(x):
        return function(x.astype(jnp.float32)).astype(x.dtype)

    def forward(x):
        return lax.platform_dependent(x, cpu=lambda x: (applied(x), x), default=value_and_slope)

    def backward(kept, cotangent):
        return (lax.platform_dependent(kept, cotangent, cpu=slope_again, default=jnp.multiply),)

    applied.defvjp(forward, backward)
    return applied


def gelu(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The error function's form (Hendrycks and Gimpel 2016, section 2), as PyTorch computes it."""
    return x * (0.5 + 0.5 * lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[str, Activation] = {
    "identity": lambda x: x,
    "gelu": pointwise(gelu),
    "gelu_tanh": pointwise(partial(jax.nn.gelu, approximate=True)),
    "relu": jax.nn.relu,
    "silu": pointwise(jax.nn.silu),
    "tanh": jnp.tanh,
}
