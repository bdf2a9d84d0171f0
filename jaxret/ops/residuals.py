"""Vectors as a centroid's number and a residual of 1, 2 or 4 bits a dimension (ColBERTv2, Santhanam et al. 2022, 3.3).

A byte of a packed residual holds `r` = 8 / bits neighbouring dimensions, the first in its highest bits, and of each
dimension the lowest bit first. Unpacking them one place of the byte after the other needs no gather, but gives the
dimensions in another order: place 0 of every byte, then place 1. Dot products do not mind, so vectors that meet are
kept in that "plane order".
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

BITS = (1, 2, 4)


def packed_residuals(residuals: Float[Array, "n k"], cutoffs: Float[Array, " m"]) -> UInt8[Array, "n p"]:
    """The bucket of each value, packed; `m + 1` buckets of `p = k * bits / 8` bytes.

    Bucket `i` holds the values above cutoff `i - 1`, up to and with cutoff `i`.
    """
    bits = (cutoffs.shape[0] + 1).bit_length() - 1
    buckets = jnp.sum(residuals[:, :, None] > cutoffs[None, None, :], axis=-1)
    each = (buckets[:, :, None] >> jnp.arange(bits)[None, None, :]) & 1
    byte_bits = each.reshape(residuals.shape[0], -1, 8)
    return jnp.sum(byte_bits << jnp.arange(7, -1, -1)[None, None, :], axis=-1).astype(jnp.uint8)


def plane_order(vectors: Float[Array, "*n k"], bits: int) -> Float[Array, "*n k"]:
    """The same with the dimensions in plane order."""
    split = vectors.reshape(*vectors.shape[:-1], -1, 8 // bits)
    return jnp.swapaxes(split, -1, -2).reshape(vectors.shape)


def unpacked_weights(packed: UInt8[Array, "*n p"], weights: Float[Array, " m"]) -> Float[Array, "*n k"]:
    """The weight of each dimension's bucket, in plane order; `m` weights, `k = 8 * p / bits`."""
    bits = weights.shape[0].bit_length() - 1
    wide = packed.astype(jnp.int32)  # lanes as wide as the weights', which the selections want
    planes = []
    for place in range(8 // bits):
        chosen = [(wide >> (7 - place * bits - bit)) & 1 == 1 for bit in range(bits)]
        planes.append(_chosen_weight(chosen, [weights[bucket] for bucket in range(weights.shape[0])]))
    return jnp.concatenate(planes, axis=-1)


def decompressed(
    centroids: Float[Array, "*n k"], packed: UInt8[Array, "*n p"], weights: Float[Array, " m"]
) -> Float[Array, "*n k"]:
    """Centroid plus residual, of length one; in plane order.

    Args:
      centroids: each vector's, in plane order.
      packed: its residual.
      weights: of the buckets.
    """
    vectors = centroids + unpacked_weights(packed, weights)
    return vectors * inverse_lengths(vectors)


def inverse_lengths(vectors: Float[Array, "*n k"]) -> Float[Array, "*n 1"]:
    """One by the length of each vector; 1e12 at most, so that a vector of zeros stays one."""
    return lax.rsqrt(jnp.maximum(jnp.sum(vectors * vectors, axis=-1, keepdims=True), 1e-24))


def _chosen_weight(bits: Sequence[Bool[Array, "*n"]], weights: Sequence[Float[Array, ""]]) -> Float[Array, ...]:
    """The weight with the number that the bits spell, the lowest bit first: selections, which vectorise."""
    if not bits:
        return weights[0]
    half = len(weights) // 2
    return jnp.where(bits[-1], _chosen_weight(bits[:-1], weights[half:]), _chosen_weight(bits[:-1], weights[:half]))


def nearest_centroid(vectors: Float[Array, "n k"], centroids: Float[Array, "c k"]) -> Int[Array, " n"]:
    """The centroid with the largest dot product; of equal ones the first."""
    products = jnp.einsum("nk,ck->nc", vectors, centroids, preferred_element_type=jnp.float32)
    # Two plain reductions, which vectorise; argmax is one over pairs, which does not.
    best = products == jnp.max(products, axis=1, keepdims=True)
    number = centroids.shape[0]
    return jnp.min(jnp.where(best, jnp.arange(number, dtype=jnp.int32)[None, :], number), axis=1)
