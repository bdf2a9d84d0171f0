"""How far dot products of vectors in bfloat16 may be from those in float32."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64

from jaxret.ops.block_scores import Rows

# Twice the unit roundoff of float32, for products that round an intermediate sum too; and its least normal number,
# below which some processors take zero.
ROUNDOFF, LEAST = 2.0**-23, 2.0**-126


def lengths(documents: Rows) -> Float[Array, " two"]:
    """The longest of some vectors, and the longest of their differences from themselves in bfloat16."""
    rows = documents.vectors.astype(jnp.float32)
    if documents.scales is not None:
        rows = rows * documents.scales[:, None]
    # XLA takes a conversion there and back for nothing.
    lost = rows - lax.reduce_precision(rows, exponent_bits=8, mantissa_bits=7)
    return jnp.stack([_longest(rows), _longest(lost)])


def score_error(queries: np.ndarray, documents: np.ndarray) -> Float64[np.ndarray, " b"]:
    """How far products in bfloat16, summed in float32, may be from those in float32, for each query and any document.

    With q, d and their roundings r(q), r(d), |q d - r(q) r(d)| <= |q - r(q)| |r(d)| + |q| |d - r(d)|; and a sum of n
    products in any order is within n u |x| |y| of the exact one (Higham 2002, equation 3.5).

    Args:
      queries: float32 [b k].
      documents: what `lengths` says of them all, float32 [2].
    """
    whole = queries.astype(np.float64)
    lost = whole - queries.astype(jnp.bfloat16).astype(np.float64)
    q, q_lost = np.linalg.norm(whole, axis=1), np.linalg.norm(lost, axis=1)
    d, d_lost = documents.astype(np.float64) * (1 + 1e-3)  # what float32 may have lost of them
    n = queries.shape[1] + 2
    rounded = (q + q_lost) * (d + d_lost)
    return q_lost * (d + d_lost) + q * d_lost + 2 * n * ROUNDOFF * rounded * (1 + 1e-3) + 8 * n * LEAST * (1 + q + d)


def _longest(rows: Float[Array, "c k"]) -> Float[Array, ""]:
    """The largest norm, of vectors whose squares may be too small or too large for float32."""
    largest = jnp.max(jnp.abs(rows), axis=1)
    scaled = rows / jnp.where(largest > 0, largest, 1)[:, None]
    return jnp.max(largest * jnp.sqrt(jnp.sum(scaled * scaled, axis=1)))
