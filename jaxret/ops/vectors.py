"""Vectors from hidden states: pooling and safe normalisation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def unit(x: Float[Array, "*n k"], epsilon: float = 1e-12) -> Float[Array, "*n k"]:
    """Vectors of length one; a zero vector stays zero and its gradient is zero, not NaN."""
    squared = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    inverse = jnp.where(squared > epsilon, jax.lax.rsqrt(jnp.maximum(squared, epsilon)), 0.0)
    return (x.astype(jnp.float32) * inverse).astype(x.dtype)


def cls_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The first position of each sequence."""
    del mask
    return x[:, 0]


def mean_pooled(x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """The mean over kept positions, summed in float32; zero where nothing is kept."""
    total = jnp.sum(jnp.where(mask[:, :, None], x, 0), axis=1, dtype=jnp.float32)
    count = jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.float32), 1.0)
    return (total / count[:, None]).astype(x.dtype)


POOLINGS = {"cls": cls_pooled, "mean": mean_pooled}
