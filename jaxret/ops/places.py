"""Where a mask is True."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

BLOCK = 128


def places_of_true(mask: Bool[Array, " n"], size: int, fill: int) -> Int[Array, " m"]:
    """The places where a mask is True, ascending, in `size` slots (as many at least); `fill` in those left over.

    `jnp.nonzero` does the same with a cumulative sum, which is slow over many numbers; here a product with a triangle
    of ones makes the sums of a block, and only the blocks' totals are summed one after the other.
    """
    number = mask.shape[0]
    blocks = jnp.pad(mask, (0, -number % BLOCK)).reshape(-1, BLOCK).astype(jnp.float32)
    inside = (blocks @ jnp.triu(jnp.ones((BLOCK, BLOCK), jnp.float32))).astype(jnp.int32)
    before = jnp.cumsum(inside[:, -1]) - inside[:, -1]
    slots = (before[:, None] + inside).reshape(-1)[:number] - 1
    places = jnp.arange(number, dtype=jnp.int32)
    return jnp.full(size, fill, jnp.int32).at[jnp.where(mask, slots, size)].set(places, mode="drop")
