"""How far dot products of vectors in bfloat16 may be from those in float32."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64

from jaxret.ops.block_scores import Rows, Tiles

# Twice the unit roundoff of float32, for products that round an intermediate sum too; and its least normal number,
# below which some processors take zero.
ROUNDOFF, LEAST = 2.0**-23, 2.0**-126
LARGEST = 2.0**127  # magnitudes up to which no sum overflows


def lengths(documents: Rows) -> Float[Array, " two"]:
    """The longest of some vectors, and the longest of their differences from themselves in bfloat16."""
    return _longest_two(documents.vectors, documents.scales)


def token_lengths(documents: Tiles) -> Float[Array, " two"]:
    """The same of the tokens of some documents; there may be more leading axes."""
    vectors, scales = documents.vectors, documents.scales
    return _longest_two(vectors.reshape(-1, vectors.shape[-1]), None if scales is None else scales.reshape(-1))


def score_error(queries: np.ndarray, documents: np.ndarray) -> Float64[np.ndarray, " b"]:
    """How far products in bfloat16, summed in float32, may be from those in float32, for each query and any document.

    With q, d and their roundings r(q), r(d), |q d - r(q) r(d)| <= |q - r(q)| |r(d)| + |q| |d - r(d)|; and a sum of n
    products in any order is within n u |x| |y| of the exact one (Higham 2002, equation 3.5).

    Args:
      queries: float32 [b k].
      documents: what `lengths` says of them all, float32 [2].

    Returns:
      Infinity where a product may overflow: nothing can be proven then.
    """
    whole = queries.astype(np.float64)
    lost = whole - queries.astype(jnp.bfloat16).astype(np.float64)
    q, q_lost = np.linalg.norm(whole, axis=1), np.linalg.norm(lost, axis=1)
    d, d_lost = documents.astype(np.float64) * (1 + 1e-3)  # what float32 may have lost of them
    n = queries.shape[1] + 2
    rounded = (q + q_lost) * (d + d_lost)
    error = q_lost * (d + d_lost) + q * d_lost + 2 * n * ROUNDOFF * rounded * (1 + 1e-3) + 8 * n * LEAST * (1 + q + d)
    return np.where(rounded < LARGEST, error, np.inf)


def maxsim_error(query: np.ndarray, documents: np.ndarray) -> float:
    """How far a MaxSim score of products in bfloat16 may be from that in float32, for any document.

    The largest of products that are each at most e away is at most e away; and a sum of s numbers is within s u times
    the sum of their magnitudes.

    Args:
      query: its tokens, float32 [s k].
      documents: what `token_lengths` says of all tokens, float32 [2].
    """
    each = score_error(query, documents)
    largest = np.linalg.norm(query.astype(np.float64), axis=1) * float(documents[0]) * (1 + 1e-2) + each
    error = float(each.sum() + 2 * (len(query) + 2) * ROUNDOFF * largest.sum())
    return error if largest.sum() < LARGEST else np.inf


def _longest_two(vectors: Array, scales: Array | None) -> Float[Array, " two"]:
    rows = vectors.astype(jnp.float32)
    if scales is not None:
        rows = rows * scales[:, None]
    # XLA takes a conversion there and back for nothing.
    lost = rows - lax.reduce_precision(rows, exponent_bits=8, mantissa_bits=7)
    return jnp.stack([_longest(rows), _longest(lost)])


def _longest(rows: Float[Array, "c k"]) -> Float[Array, ""]:
    """The largest norm, of vectors whose squares may be too small or too large for float32."""
    largest = jnp.max(jnp.abs(rows), axis=1)
    scaled = rows / jnp.where(largest > 0, largest, 1)[:, None]
    return jnp.max(largest * jnp.sqrt(jnp.sum(scaled * scaled, axis=1)))
