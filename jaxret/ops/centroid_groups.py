"""The nearest of very many centroids by way of groups of them: first the groups with the nearest means, then inside."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def nearest_groups(vectors: Float[Array, "n k"], means: Float[Array, "g k"], count: int) -> Int[Array, "n p"]:
    """The groups whose means have the largest products with each vector, the largest first; of equal ones the first."""
    products = jnp.einsum("nk,gk->ng", vectors, means, preferred_element_type=jnp.float32)
    numbers, chosen = jnp.arange(means.shape[0], dtype=jnp.int32)[None, :], []
    for _ in range(count):
        # Plain reductions, which vectorise; top_k sorts.
        best = products == jnp.max(products, axis=1, keepdims=True)
        chosen.append(jnp.min(jnp.where(best, numbers, means.shape[0]), axis=1))
        products = jnp.where(numbers == chosen[-1][:, None], -jnp.inf, products)
    return jnp.stack(chosen, axis=1)


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
