"""The nearest of very many centroids by way of groups of them: first the groups with the nearest means, then inside."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def nearest_groups(vectors: Float[Array, "n k"], means: Float[Array, "g k"], count: int) -> Int[Array, "n p"]:
    """The groups whose means have the largest products with each vector, the largest first.

    A product and its group's number share 32 bits, so that the next best one takes a single pass, which vectorises, and
    no sort. Products that differ in bits that the numbers take are equal, and of equal ones the first wins.
    """
    low = (1 << (means.shape[0] - 1).bit_length()) - 1
    products = jnp.einsum("nk,gk->ng", vectors, means, preferred_element_type=jnp.float32)
    bits = lax.bitcast_convert_type(products, jnp.int32)
    ordered = jnp.where(bits < 0, bits ^ jnp.int32(2**31 - 1), bits)  # integers in the order of the numbers
    keys = (ordered & ~low) | (low - jnp.arange(means.shape[0], dtype=jnp.int32))[None, :]
    keys, best = lax.optimization_barrier(keys), [jnp.full(vectors.shape[0], 2**31 - 1, jnp.int32)]
    for _ in range(count):
        best.append(jnp.max(jnp.where(keys < best[-1][:, None], keys, -(2**31)), axis=1))
    return low - (jnp.stack(best[1:], axis=1) & low)


def nearest_members(
    vectors: Float[Array, "n k"], rows: Int[Array, "t r"], group: Int[Array, " t"], members: Float[Array, "g m k"]
) -> tuple[Float[Array, "t r"], Int[Array, "t r"]]:
    """The largest product of vectors with the members of a group, and which member it is; of equal ones the first.

    Args:
      vectors: all of them.
      rows: of the vectors, in tiles.
      group: that the vectors of each tile are compared with.
      members: of all groups.
    """

    def one(tile: tuple[Int[Array, " r"], Int[Array, ""]]) -> tuple[Float[Array, " r"], Int[Array, " r"]]:
        own, others = vectors[tile[0]], members[tile[1]]
        products = jnp.einsum("rk,mk->rm", own, others, preferred_element_type=jnp.float32)
        best = jnp.max(products, axis=1)
        places = jnp.arange(others.shape[0], dtype=jnp.int32)[None, :]
        return best, jnp.min(jnp.where(products == best[:, None], places, others.shape[0]), axis=1)

    return lax.map(one, (rows, group))
