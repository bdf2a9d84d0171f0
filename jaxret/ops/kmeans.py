"""Spherical k-means: clusters of unit vectors by dot product, each with a unit vector as its centroid."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxret.ops.residuals import nearest_centroid


class ClusterSums(NamedTuple):
    """What a pass over the vectors leaves of each cluster."""

    sums: Float[Array, "c k"]
    counts: Float[Array, " c"]


def cluster_sums(vectors: Float[Array, "n k"], used: Bool[Array, " n"], centroids: Float[Array, "c k"]) -> ClusterSums:
    """Sum and number of the vectors nearest to each centroid; vectors that are not used count nowhere."""
    number = centroids.shape[0]
    nearest = jnp.where(used, nearest_centroid(vectors, centroids), number)
    sums = jax.ops.segment_sum(vectors, nearest, num_segments=number + 1)[:number]
    return ClusterSums(sums, jax.ops.segment_sum(used.astype(jnp.float32), nearest, num_segments=number + 1)[:number])


def kmeans_step(
    blocks: Float[Array, "m n k"], used: Bool[Array, "m n"], centroids: Float[Array, "c k"]
) -> Float[Array, "c k"]:
    """The next centroids: the direction of each cluster's sum. An empty cluster, or one that sums to 0, keeps its own.

    Args:
      blocks: vectors; the products with all centroids are made for one block at a time.
      used: False marks padding.
      centroids: unit vectors.
    """

    def add(total: ClusterSums, block: tuple[Float[Array, "n k"], Bool[Array, " n"]]) -> tuple[ClusterSums, None]:
        part = cluster_sums(*block, centroids)
        return ClusterSums(total.sums + part.sums, total.counts + part.counts), None

    nothing = ClusterSums(jnp.zeros(centroids.shape, jnp.float32), jnp.zeros(centroids.shape[0], jnp.float32))
    total, _ = lax.scan(add, nothing, (blocks, used))
    length = jnp.linalg.norm(total.sums, axis=1, keepdims=True)
    keep = (total.counts[:, None] == 0) | (length < 1e-6)
    return jnp.where(keep, centroids, total.sums / jnp.where(keep, 1.0, length))
