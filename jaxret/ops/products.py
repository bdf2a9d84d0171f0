"""The product of a dense layer, with a gradient in the layouts that XLA has fast kernels for."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_vjp
def dense_product(
    x: Float[Array, "b l d"], kernel: Float[Array, "d f"], bias: Float[Array, " f"] | None = None
) -> Float[Array, "b l f"]:
    """`x @ kernel + bias`, accumulated in float32, rounded once to the dtype of `x`.

    Automatic differentiation writes the kernel's gradient as a transposed product, which misses the fast kernels of
    CPUs, and runs a bfloat16 layer's backward pass in float32. Here the cotangent keeps the dtype of `x`.
    """
    y = _product(x, kernel, ((2,), (0,)))
    return (y if bias is None else y + bias.astype(y.dtype)[None, None]).astype(x.dtype)


def _product(a, b, contracting, precision=None):
    return lax.dot_general(a, b, (contracting, ((), ())), precision=precision, preferred_element_type=_wide(a))


def _wide(a):
    return jnp.promote_types(a.dtype, jnp.float32)


def wide_einsum(axes: str, a: Array, b: Array) -> Array:
    """`einsum` of two arrays, accumulated in float32 (float64 of float64)."""
    return jnp.einsum(axes, a, b, preferred_element_type=_wide(a))


def rows_product(a: Float[Array, "*n l d"], b: Float[Array, "*n l f"]) -> Float[Array, "*n d f"]:
    """The transpose of `a` times `b`, accumulated in float32."""
    return _narrow_first(functools.partial(wide_einsum, "...ld,...lf->...df"), a, b)


def _narrow_first(product: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """`product(a, b)`; on a CPU, which copies the left one to transpose it, with the narrower one there."""
    if a.shape[-1] <= b.shape[-1]:
        return product(a, b)

    def turned(a, b):
        # Without a barrier XLA would turn it around again.
        return jnp.swapaxes(lax.optimization_barrier(product(b, a)), -1, -2)

    return lax.platform_dependent(a, b, cpu=turned, default=product)


def _kernel_gradient(x: Float[Array, "b l d"], g: Float[Array, "b l f"]) -> Float[Array, "d f"]:
    """Away from CPUs, and in bfloat16, a product contracted over both leading axes at once has the fastest kernels."""

    def whole(x, g):
        return _product(x, g, ((0, 1), (0, 1)))

    def flat(x, g):
        return rows_product(x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1]))

    if x.dtype == jnp.bfloat16:
        return _narrow_first(whole, x, g)
    return lax.platform_dependent(x, g, cpu=flat, default=whole)


def column_sums(x: Float[Array, "*n d"]) -> Float[Array, " d"]:
    """The sum over all axes but the last, in float32.

    It is a product with eight columns of ones: with one XLA for TPUs would add up the rows instead, more slowly than it
    made them.
    """
    rows = tuple(range(x.ndim - 1))
    return _product(jnp.ones((*x.shape[:-1], 8), x.dtype), x, (rows, rows), lax.Precision.HIGHEST)[0]


def _forward(x, kernel, bias=None):
    return dense_product(x, kernel, bias), (x, kernel, bias)


def _backward(residuals, cotangent):
    x, kernel, bias = residuals
    g = cotangent.astype(x.dtype)
    dx, dkernel = _product(g, kernel, ((2,), (1,))), _kernel_gradient(x, g)
    dbias = None if bias is None else column_sums(g).astype(bias.dtype)
    return dx.astype(x.dtype), dkernel.astype(kernel.dtype), dbias


dense_product.defvjp(_forward, _backward)
