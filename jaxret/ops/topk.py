"""The k best of a stream of scores. Equal scores go by position, the lower first."""

from __future__ import annotations

from typing import NamedTuple

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


def with_block(best: TopK, scores: Float[Array, "b c"], positions: Int[Array, " c"]) -> TopK:
    """The best k so far after one more block of documents.

    Args:
      best: `[b k]`, best first.
      scores: of the block's documents.
      positions: of the same, ascending; EMPTY marks padding.
    """
    k = best.scores.shape[1]
    scores = jnp.where((positions == EMPTY)[None, :], -jnp.inf, _one_zero(scores))

    def selected(best: TopK) -> TopK:
        top, index = lax.top_k(scores, min(k, scores.shape[1]))
        found = TopK(top, jnp.where(top == -jnp.inf, EMPTY, jnp.take(positions, index)))
        return merged(TopK(*(jnp.concatenate(pair, axis=1) for pair in zip(best, found, strict=True))), k)

    # Late in a search most blocks hold nothing for any query of the batch.
    enters = jnp.any(jnp.max(scores, axis=1) >= best.scores[:, -1])
    return lax.cond(enters, selected, lambda best: best, best)


def _one_zero(scores: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """-0.0 as 0.0: `lax.top_k` ranks them apart, and XLA drops an addition of zero."""
    return jnp.where(scores == 0, 0.0, scores)
