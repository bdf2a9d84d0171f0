"""The product of a dense layer, with a gradient in the layouts that XLA has fast kernels for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_vjp
def dense_product(x: Float[Array, "b l d"], kernel: Float[Array, "d f"]) -> Float[Array, "b l f"]:
    """`x @ kernel`, accumulated in float32, in the dtype of `x`.

    Automatic differentiation writes the kernel's gradient as a transposed product, which misses the fast kernels of
    CPUs, and runs a bfloat16 layer's backward pass in float32. Here the cotangent keeps the dtype of `x` and is
    contracted over both leading axes at once.
    """
    return _product(x, kernel, ((2,), (0,)), x.dtype)


def _product(a, b, contracting, dtype):
    return lax.dot_general(a, b, (contracting, ((), ())), preferred_element_type=jnp.float32).astype(dtype)


def _forward(x, kernel):
    return dense_product(x, kernel), (x, kernel)


def _backward(residuals, cotangent):
    x, kernel = residuals
    g = cotangent.astype(x.dtype)
    return _product(g, kernel, ((2,), (1,)), x.dtype), _product(x, g, ((0, 1), (0, 1)), kernel.dtype)


dense_product.defvjp(_forward, _backward)
