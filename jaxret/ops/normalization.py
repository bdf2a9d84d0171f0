"""Normalisation of states, in float32, with a gradient that reads them as seldom as it can."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxret.ops.products import column_sums

STATISTICS = "statistics"  # the name of the means and deviations, for rematerialisation


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*n d"], scale: Float[Array, " d"], bias: Float[Array, " d"] | None, epsilon: float
) -> Float[Array, "*n d"]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis (Ba et al. 2016, eq. 4)."""
    return _normalized(x, scale, bias, *_statistics(x, epsilon))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def rms_norm(
    x: Float[Array, "*n d"], scale: Float[Array, " d"], bias: Float[Array, " d"] | None, epsilon: float
) -> Float[Array, "*n d"]:
    """X / sqrt(mean of squares + epsilon) * scale + bias over the last axis (Zhang and Sennrich 2019, eq. 4)."""
    return _normalized(x, scale, bias, None, _deviation(x.astype(_wide(x)), epsilon))


def _wide(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


def _statistics(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Mean and inverse deviation of each row, [*n 1].

    bfloat16 is gone through once, by the mean of squares less the square of the mean: where that loses digits of
    float32, rounding to bfloat16 lost more.
    """
    y = x.astype(_wide(x))
    mean = checkpoint_name(jnp.mean(y, axis=-1, keepdims=True), STATISTICS)
    if x.dtype != jnp.bfloat16:
        return mean, _deviation(y - mean, epsilon)
    variance = jnp.maximum(jnp.mean(jnp.square(y), axis=-1, keepdims=True) - jnp.square(mean), 0)
    return mean, checkpoint_name(lax.rsqrt(variance + epsilon), STATISTICS)


def _deviation(y: Array, epsilon: float) -> Array:
    return checkpoint_name(lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + epsilon), STATISTICS)


def _along(row: Array, x: Array) -> Array:
    """A row [d] in the dtype and with the axes of statistics."""
    return row.astype(_wide(x)).reshape((1,) * (x.ndim - 1) + (-1,))


def _normalized(x: Array, scale: Array, bias: Array | None, mean: Array | None, deviation: Array) -> Array:
    y = x.astype(_wide(x))
    y = (y if mean is None else y - mean) * deviation * _along(scale, x)
    return (y if bias is None else y + _along(bias, x)).astype(x.dtype)


def _layer_forward(x, scale, bias, epsilon):
    mean, deviation = _statistics(x, epsilon)
    return _normalized(x, scale, bias, mean, deviation), (x, scale, bias, mean, deviation)


def _rms_forward(x, scale, bias, epsilon):
    deviation = _deviation(x.astype(_wide(x)), epsilon)
    return _normalized(x, scale, bias, None, deviation), (x, scale, bias, None, deviation)


def _backward(epsilon, residuals, cotangent):
    x, scale, bias, mean, deviation = residuals
    y, g = x.astype(_wide(x)), cotangent.astype(_wide(x))
    y = (y if mean is None else y - mean) * deviation
    inner = g * _along(scale, x)
    dx = inner - y * jnp.mean(inner * y, axis=-1, keepdims=True)
    dx = (dx if mean is None else dx - jnp.mean(inner, axis=-1, keepdims=True)) * deviation
    rows = tuple(range(x.ndim - 1))
    dscale = jnp.sum(g * y, axis=rows).astype(scale.dtype)
    dbias = None if bias is None else column_sums(cotangent).astype(bias.dtype)
    return dx.astype(x.dtype), dscale, dbias


layer_norm.defvjp(_layer_forward, _backward)
rms_norm.defvjp(_rms_forward, _backward)
