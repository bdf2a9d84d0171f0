"""Dropout by row: what a row of the batch loses depends on the key and the row's number, not on the rows beside it.

A batch that is embedded in chunks, or on several devices, then loses what the whole batch loses on one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


class Dropout(nn.Module):
    """`dropped`, by the key named "dropout"; nothing where it is deterministic."""

    rate: float
    deterministic: bool

    def __call__(self, x: Float[Array, b * n]) -> Float[Array, b * n]:
        """Drops."""
        return x if self.deterministic or not self.rate else dropped(x, self.rate, self.make_rng("dropout"))
