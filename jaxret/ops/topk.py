"""The k best of a stream of scores. Equal scores go by position, the lower first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

EMPTY = 2**31 - 1


class TopK(NamedTuple):
    """Ranked results; an empty slot has score -inf and position EMPTY."""

    scores: Float[Array, "b k"]
    positions: Int[Array, "b k"]


def empty_top_k(num_queries: int, k: int) -> TopK:
    """No result yet."""
    return TopK(jnp.full((num_queries, k), -jnp.inf, jnp.float32), jnp.full((num_queries, k), EMPTY, jnp.int32))


def merged(parts: TopK, k: int) -> TopK:
    """The best k of `[b m]` candidates in any order, m >= k; no position may occur twice."""
    scores, positions = lax.sort((-parts.scores, parts.positions), num_keys=2)
    return TopK(_one_zero(-scores[:, :k]), positions[:, :k])


def scanned_top_k(
    score: Callable[[Any, Any], Float[Array, "b c"]], queries: Any, blocks: Any, positions: Int[Array, "n c"], k: int
) -> TopK:
    """A running top-k over blocks of documents; memory is bounded by one block's scores.

    Args:
      score: `(queries, block) -> [b c]`.
      queries: passed to `score` as it is.
      blocks: a pytree of `n` blocks on the leading axis.
      positions: of each block's documents, ascending within a block; EMPTY marks padding.
      k: results a query.
    """

    def step(best: TopK, block: tuple[Any, Int[Array, " c"]]) -> tuple[TopK, None]:
        documents, places = block
        scores = jnp.where((places == EMPTY)[None, :], -jnp.inf, _one_zero(score(queries, documents)))
        top, index = lax.top_k(scores, min(k, scores.shape[1]))
        found = TopK(top, jnp.where(top == -jnp.inf, EMPTY, jnp.take(places, index)))
        return merged(TopK(*(jnp.concatenate(pair, axis=1) for pair in zip(best, found, strict=True))), k), None

    num_queries = jax.tree.leaves(queries)[0].shape[0]
    best, _ = lax.scan(step, empty_top_k(num_queries, k), (blocks, positions))
    return best


def _one_zero(scores: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """-0.0 as 0.0: `lax.top_k` ranks them apart, and XLA drops an addition of zero."""
    return jnp.where(scores == 0, 0.0, scores)
