"""Vectors from hidden states: pooling and safe normalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxret.ops.masked import precise


def unit(x: Float[Array, "*n k"], epsilon: float = 1e-12) -> Float[Array, "*n k"]:
    """Vectors of length one; a zero vector stays zero and its gradient is zero, not NaN."""
    wide = precise(x)
    squared = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
    inverse = jnp.where(squared > epsilon, jax.lax.rsqrt(jnp.maximum(squared, epsilon)), 0.0)
    return (wide * inverse).astype(x.dtype)


def cls_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The first kept position of each sequence."""
    return _taken(x, jnp.argmax(mask, axis=1))


def last_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The last kept position of each sequence."""
    return _taken(x, mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1))


def mean_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The mean over kept positions, summed in float32; zero where nothing is kept."""
    count = jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.float32), 1.0)
    return (_total(x, mask) / count[:, None]).astype(x.dtype)


def root_mean_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The sum over kept positions over the square root of their number; zero where nothing is kept."""
    count = jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.float32), 1.0)
    return (_total(x, mask) / jnp.sqrt(count)[:, None]).astype(x.dtype)


def weighted_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The mean with weights 1, 2, 3, ... over kept positions (SGPT, Muennighoff 2022, eq. 2)."""
    weights = jnp.where(mask, jnp.cumsum(mask, axis=1, dtype=jnp.float32), 0.0)
    total = jnp.einsum("bl,bld->bd", weights, x.astype(jnp.float32), preferred_element_type=jnp.float32)
    return (total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)[:, None]).astype(x.dtype)


def max_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The maximum over kept positions; zero where nothing is kept."""
    best = jnp.max(jnp.where(mask[:, :, None], x, -jnp.inf), axis=1)
    return jnp.where(jnp.any(mask, axis=1)[:, None], best, 0).astype(x.dtype)


def _total(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    return jnp.sum(jnp.where(mask[:, :, None], x, 0), axis=1, dtype=jnp.float32)


def _taken(x: Float[Array, "b l d"], place: Int[Array, " b"]) -> Float[Array, "b d"]:
    return jnp.take_along_axis(x, place[:, None, None], axis=1)[:, 0]


POOLINGS = {
    "cls": cls_pooled,
    "mean": mean_pooled,
    "last": last_pooled,
    "max": max_pooled,
    "weighted": weighted_pooled,
    "root_mean": root_mean_pooled,
}
