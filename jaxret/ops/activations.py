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
    """`function` computed in float32, its value and its slope in the dtype of its argument.

    The slope is all that the backward pass keeps, and bfloat16 is not rounded to between the function's own steps,
    which costs a CPU more than the steps.
    """

    @jax.custom_jvp
    def applied(x):
        return function(x.astype(jnp.float32)).astype(x.dtype)

    @applied.defjvp
    def _(primals, tangents):
        ((x,), (tangent,)) = primals, tangents
        y = x.astype(jnp.float32)
        value, slope = jax.jvp(function, (y,), (jnp.ones_like(y),))
        return value.astype(x.dtype), tangent * slope.astype(x.dtype)

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
