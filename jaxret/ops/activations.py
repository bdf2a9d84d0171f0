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

    The argument is all that the backward pass keeps: to compute the slope again costs less than to write it and read
    it. Bfloat16 is not rounded to between the function's own steps, which costs a CPU more than the steps.
    """

    @jax.custom_vjp
    def applied(x):
        return function(x.astype(jnp.float32)).astype(x.dtype)

    def forward(x):
        return applied(x), x

    def backward(x, cotangent):
        # Otherwise XLA would keep the steps that the value and its slope share.
        y = lax.optimization_barrier((x, cotangent))[0].astype(jnp.float32)
        slope = jax.jvp(function, (y,), (jnp.ones_like(y),))[1]
        return ((cotangent.astype(jnp.float32) * slope).astype(x.dtype),)

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
