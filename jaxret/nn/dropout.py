"""Dropout by row: what a row of the batch loses depends on the key and the row's number, not on the rows beside it.

A batch that is embedded in chunks, or on several devices, then loses what the whole batch loses on one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

_ROWS: ContextVar[jax.Array | None] = ContextVar("rows", default=None)


@contextmanager
def row_numbers(rows: Int[Array, " b"]) -> Iterator[None]:
    """Inside it, the rows of every array that loses elements have these numbers; elsewhere 0, 1, 2 and so on.

    Enter it inside the function that is traced: JAX's caches of traced functions do not know of it.
    """
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def dropped(x: Float[Array, b * n], rate: float, key: jax.Array) -> Float[Array, b * n]:
    """`x` with a share `rate` of its elements 0 and the others divided by 1 - rate (Srivastava et al. 2014)."""
    rows = _ROWS.get()
    rows = jnp.arange(len(x)) if rows is None else rows
    seeds = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row), (2,)))(rows)
    kept = _hashed(seeds, x.shape[1:]) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def _hashed(seeds: UInt32[Array, "b 2"], shape: tuple[int, ...]) -> UInt32[Array, b * n]:
    """32 bits for each place of each row.

    The place goes through two rounds of shifts and odd factors, each begun with half of the row's seed: a fifth of the
    work of the generator that makes the seeds. (The factors are those of C. Wellons' hash prospector.)
    """
    along = seeds.reshape(len(seeds), 2, *(1,) * len(shape))
    steps = (math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    places = sum(
        jnp.uint32(step) * lax.broadcasted_iota(jnp.uint32, (1, *shape), axis + 1) for axis, step in enumerate(steps)
    )
    x = places ^ along[:, 0]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D) ^ along[:, 1]
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


class Dropout(nn.Module):
    """`dropped`, by the key named "dropout"; nothing where it is deterministic."""

    rate: float
    deterministic: bool

    def __call__(self, x: Float[Array, b * n]) -> Float[Array, b * n]:
        """Drops."""
        return x if self.deterministic or not self.rate else dropped(x, self.rate, self.make_rng("dropout"))
