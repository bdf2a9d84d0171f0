"""Vectors of earlier batches as further negatives: one ring of memories for each language, or one for all."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

UNKNOWN = -1  # the key of a place that nothing was written to, and of a text without one


class MemoryBank(NamedTuple):
    """Rings of memories; the oldest are overwritten first.

    Attributes:
      vectors: of each language, `[g m k]`.
      keys: what text each vector is of, `[g m]`; equal texts have equal keys.
      next: where the next vector of each language goes, `[g]`.
      filled: places written so far, `[g]`; the others take no part.
    """

    vectors: Float[Array, "g m k"]
    keys: Int[Array, "g m"]
    next: Int[Array, " g"]
    filled: Int[Array, " g"]


def empty_bank(languages: int, size: int, width: int) -> MemoryBank:
    """`languages` rings of `size` places for vectors of `width`, nothing in them yet."""
    keys = jnp.full((languages, size), UNKNOWN, jnp.int32)
    start, none = jnp.zeros(languages, jnp.int32), jnp.zeros(languages, jnp.int32)  # each its own: a step donates them
    return MemoryBank(jnp.zeros((languages, size, width), jnp.float32), keys, start, none)


def remembered(
    bank: MemoryBank, vectors: Float[Array, "n k"], language: Int[Array, " n"], keys: Int[Array, " n"]
) -> MemoryBank:
    """The bank after the vectors went in, row after row, each into its language's ring; no gradient flows into it.

    Of more vectors of one language than the ring has places, the last stay.
    """
    languages, size = bank.keys.shape
    mine = language[:, None] == jnp.arange(languages)[None, :]
    count = jnp.sum(mine, axis=0, dtype=jnp.int32)
    before = jnp.take_along_axis(jnp.cumsum(mine, axis=0, dtype=jnp.int32), language[:, None], axis=1)[:, 0] - 1
    lasts = before >= jnp.take(count, language) - size
    place = (jnp.take(bank.next, language) + before) % size
    where = (language, jnp.where(lasts, place, size))  # a place past the end is dropped
    return MemoryBank(
        bank.vectors.at[where].set(lax.stop_gradient(vectors).astype(bank.vectors.dtype), mode="drop"),
        bank.keys.at[where].set(keys.astype(jnp.int32), mode="drop"),
        (bank.next + count) % size,
        jnp.minimum(bank.filled + count, size),
    )


def bank_scores(
    x: Float[Array, "b k"], bank: MemoryBank, language: Int[Array, " b"]
) -> tuple[Float[Array, "b m"], Int[Array, "b m"], Bool[Array, "b m"]]:
    """Dot products with the memories of each row's language, their keys, and which places hold one.

    Language after language, so that no more than `[b m]` numbers are held.
    """
    languages, size = bank.keys.shape

    def one(scores: Array, ring: tuple[Array, Array]) -> tuple[Array, None]:
        number, vectors = ring
        found = jnp.einsum("bk,mk->bm", x, vectors, preferred_element_type=jnp.float32)
        return jnp.where((language == number)[:, None], found, scores), None

    start = jnp.zeros((x.shape[0], size), jnp.float32)
    scores, _ = lax.scan(one, start, (jnp.arange(languages), bank.vectors))
    written = jnp.arange(size)[None, :] < jnp.take(bank.filled, language)[:, None]
    return scores, jnp.take(bank.keys, language, axis=0), written
